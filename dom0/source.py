"""The host a VM leaves: how each step of the machine's source side is done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from dom0 import bridges, stretch
from dom0.bridge_port import BridgePort
from dom0.claim import Agreement, Wire
from dom0.context import Context
from dom0.convergence_watch import ConvergenceWatch
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.priority import guest_process
from dom0.dataplane.source_port import Released, Reopened, SourcePort
from dom0.drain import drained
from dom0.guest_port import GuestPort
from dom0.guest_watch import GuestWatch
from dom0.leaving_fabric import LeavingFabric
from dom0.links_move import LinksMove
from dom0.migration import Migration, settled
from dom0.options import Options
from dom0.outgoing import AWAY_S, DECIDE_S, Outgoing
from dom0.result import source_verdict
from dom0.router.leaving import RouterLeaving
from dom0.router.router import Router
from dom0.wiring import ClaimRequest, Outlet, Wiring, draw, late_qdisc, outlets, unprotected
from vmnet.actions import Action, Kind
from vmnet.convergence import QEMU_WAITS_MS
from vmnet.domain_xml import DomainInfo
from vmnet.errors import RefusedError, VmnetError, WaitTimeoutError
from vmnet.hypervisor.events import DomainEvent, Happening
from vmnet.machine import Event, Role, State, Step, can_roll_back
from vmnet.store import Binding, MigrationRecord

_SAMPLE_S = 0.01
_VERIFY_S = 0.25
_EARLY_SAMPLE_S = 0.05  # before the first pass the guest does not stop
_ANSWER_AFTER_S = 1.0
"""Usually the guest runs again before that, and answers for itself. Kernels give a neighbour up after three seconds or more."""
_PEER_S = 5.0
_FORWARD_S = 5.0
_CLAIM_S = 30.0
"""From QEMU's first pass on. A busy destination takes seconds for its hook, and the claim goes there and back."""
_LOOK_S = 5.0


class SourceMigration(Migration):
    role = Role.SOURCE

    def __init__(
        self,
        context: Context,
        record: MigrationRecord,
        info: DomainInfo,
        binding: Binding,
        options: Options,
    ) -> None:
        super().__init__(context, record, State.PREFLIGHT)
        self.info = info
        self.binding = binding
        self.options = options
        self.autostart = False
        """The VM starts with its host, and is to do so at its new one."""
        self.claim: ClaimRequest | None = None
        self.outlets: tuple[Outlet, ...] = ()
        self.unprotected = unprotected(info)
        self.multi_queue = tuple(one.mac for one in info.interfaces if one.queues > 1)
        self.wiring = Wiring()
        self.ports: list[SourcePort] = []
        self.released: list[Released] = []
        self.reopened: list[Reopened] = []
        self.whereabouts_known = True
        """False: libvirt went away, and does not say whether the VM has left."""
        self.followed_in_order = True
        """Nothing that had to follow the guest was sent behind later frames."""
        self.stop_ns: int | None = None
        self.resume_ns: int | None = None
        self.runs_there = asyncio.Event()
        """As the destination says."""
        self.failed_there = False
        self.divert_ns: int | None = None
        self.passes = 0
        self.gone = self.held = self.ended_here = self.abort_requested = False
        self.stopped = asyncio.Event()
        self.opened: dict[str, Any] = {}
        self.final_counts: dict[str, Any] = {}
        self.paused_there = False
        """The VM is at the destination, and is not to run yet."""
        self.tunnel_sent: list[int] = []
        """Frames by interface, when the destination was asked how many it has received."""
        self.clock_offset_ns = 0
        self.began = time.monotonic()
        self.watch: ConvergenceWatch | None = None
        self.router: Router | None = None
        """If the VM is one, and has a data plane here."""
        self.leaving: RouterLeaving | None = None
        """If that forwards. One without its routes yet is of no use elsewhere: it is made there from the start."""
        self.fabric: LeavingFabric | None = None
        """If it is told of moves, and the VM's LAN is at the destination."""
        self._claim_awaited = self._looks = False
        self._last_wanted = False
        """The destination waits for what follows the guest's last packet."""
        self._links: LinksMove | None = None
        self.guest = GuestWatch([], self._guest_addresses, self._ask, self.log)
        self._still_since: float | None = None
        """Monotonic, when the guest was known to have stopped."""
        self._released = asyncio.Event()
        self._expected = asyncio.Event()
        """The destination holds what arrives directly."""
        self.attached: asyncio.Future[Agreement] = asyncio.get_running_loop().create_future()
        """What the destination gets for an answer to its claim."""
        self.agreed: Agreement | None = None
        self._outgoing = Outgoing(context.domains, record.vm)
        self.steps = {
            Step.START_MIGRATION: self._start_migration,
            Step.GUARD_SOURCE: self._guard,
            Step.AWAIT_CLAIM: self._await_claim,
            Step.ATTACH_SOURCE: self._attach,
            Step.EXPECT_PEER: self._expect_peer,
            Step.HOLD: self._hold,
            Step.RELEASE: self._release_if_empty,
            Step.SUSPEND: self._suspend,
            Step.RECOVER: self._recover,
            Step.PREPARE_FABRIC: self._tells(LeavingFabric.prepare),
            Step.CUT_OVER: self._tells(LeavingFabric.cut_over),
            Step.FINISH_FABRIC: self._tells(LeavingFabric.finish),
            Step.RETURN_FABRIC: self._tells(lambda fabric: fabric.roll_back(self.gone)),
            Step.MOVE_LINKS: self._move_links,
            Step.RETURN_LINKS: self._return_links,
            Step.STRETCH: self._stretch,
            Step.ABORT_JOB: self._abort_job,
            Step.REOPEN: self._reopen,
            Step.RESUME_GUEST: self._resume_guest,
            Step.CANCEL_PEER: self._cancel_peer,
            Step.RETIRE_SOURCE: self._retire,
            Step.FINISH_PEER: self._finish_peer,
            Step.DETACH_SOURCE: self._detach,
            Step.VERDICT: self._verdict,
        }

    @property
    def managed(self) -> bool:
        return self.record.mode == "managed"

    # -- what happens to the domain --------------------------------------------------------------------------------

    def hypervisor_event(self, event: DomainEvent) -> None:
        happening = event.happening
        if happening is Happening.PASS:
            self.passes = max(self.passes, event.number)
            self.tell("pass", number=event.number)
            if self.watch is not None:
                self.watch.pass_began()
            if self.fabric is not None and can_roll_back(self.state) and not self.held:
                self.fabric.prepare_again()  # its guest has shown more addresses meanwhile
                self.fabric.rehearse()
            self.post(Event.PASS)
        elif happening in (Happening.GUEST_STOP, Happening.SUSPENDED):
            self._guest_stopped(event)
        elif happening in (Happening.GUEST_RESUME, Happening.RESUMED):
            self.post(Event.GUEST_RUNNING)
        elif happening is Happening.STOPPED:
            self.gone = True
            self.ended_here = event.detail != "migrated"
            if self.ended_here:
                self.post(
                    Event.FAILED,
                    RefusedError(f"VM {self.record.name!r} ended at the source ({event.detail})"),
                )
            self.post(Event.GONE)
        elif happening is Happening.JOB_COMPLETED:
            self.tell("job-completed", downtime_ms=event.number)

    def _unclaimed(self) -> RefusedError | None:
        """Why the migration ends if its memory is copied while the destination's daemon does not ask for the VM."""
        if self.state is not State.STARTING or self.claim is not None:
            return None
        there = self.record.destination
        return RefusedError(
            f"the hypervisor copied the VM before the daemon on {there} had asked for it",
            f"try again; if it stays so, {there} is too busy or its hooks do not run (`vmnet hooks status`)",
        )

    def _guest_stopped(self, event: DomainEvent) -> None:
        if self.state not in (State.PRECOPY, State.SWITCHOVER, State.STARTING):
            return
        if event.happening is Happening.GUEST_STOP and self.stop_ns is None:
            self.stop_ns = event.time_ns
            self.tell("stop", at=event.time_ns / 1e9)
        self._hold_now()  # every millisecond here is a frame more to recover
        self._still_since = self._still_since or time.monotonic()
        self.stopped.set()
        self.guest.connections.last()
        self._say_last()
        if self._links is not None:
            self._links.begin()
        self.post(Event.GUEST_STOPPED, self._unclaimed())

    def after(self, event: Event) -> None:
        if self.state is State.ABORTING:
            self.post(Event.PEER_RESUMED if self._has_left() else Event.STAYED)
        self._look_whether_it_has_gone()
        if self.gone and self.state in (State.RESUMED, State.FINISHING):
            self.post(Event.GONE)
        if self.state in (State.STOPPED, State.SWITCHOVER) and self.gone:
            self.expect_within(
                _FORWARD_S, Event.PEER_RESUMED, "the destination's daemon did not report the resume"
            )
        if self.state is State.LEFT:
            self.expect_within(
                _FORWARD_S, Event.PEER_OPEN, "the destination's daemon did not open its direct path"
            )

    def entered(self) -> None:
        self.context.hurry.end(self.watch, os.getpid())  # the state says what comes first
        # a destination that waits for its claim's answer holds up its hypervisor, and so the abort: do not let it wait
        if self.state in (State.ABORTING, State.ROLLED_BACK) and not self.attached.done():
            reason = self.error.message if self.error is not None else "cancelled"
            self.attached.set_exception(RefusedError(f"{self.context.host} does not let the VM go: {reason}"))
            self.attached.exception()  # nobody need ask for it

    # -- steps ---------------------------------------------------------------------------------------------------

    async def _guard(self) -> None:
        """Before anything else makes the guest slow: until its tap has more room, what it does not take in time is lost."""
        self.router = self.context.routers.of(self.record.vm)
        self.outlets = outlets(self.info, None if self.router is None else self.router.spec.management)
        if self.unprotected:
            self.log.warning("nothing can be held at %s", ", ".join(self.unprotected))
        memory = self.context.config.recorder.bytes
        await self.journal([action for one in self.outlets for action in one.actions(memory)])
        making = [
            asyncio.to_thread(SourcePort, one.tap, self.port_settings(one.mac, one.vni))
            for one in self.outlets
        ]
        settled(await asyncio.gather(*making, return_exceptions=True), self.ports)
        self.unprotected += tuple(
            late_qdisc(port.tap, self.context.host) for port in self.ports if not port.was_ready
        )
        self.spawn(self._sample())
        self.spawn(self._verify_gates())
        await asyncio.gather(*(asyncio.to_thread(port.make_room) for port in self.ports))

    async def _start_migration(self) -> None:
        defined = await self.context.domains.defined(self.record.vm)
        there = self.options.definition.at_destination(defined.persistent)
        self.autostart = defined.autostart and there
        peer = self.context.config.peers[self.record.destination]
        # where hosts share processors, as in a lab, a QEMU that starts may take the guest's
        if (guest := guest_process(self.record.name)) is not None:
            self.context.favour.begin(self, guest)
        self._outgoing.begun_by(self.spawn(self._migrate(peer.libvirt_uri, peer.migrate_uri)))

    async def _migrate(self, uri: str, migrate_uri: str | None) -> None:
        try:
            await self._outgoing.migrate(uri, migrate_uri, self.options.definition)
        except VmnetError as error:
            if self._outgoing.cut_off:
                await self._find_out(error)
            else:
                self.post(Event.FAILED, error)
        else:
            self._has_gone()

    async def _find_out(self, error: VmnetError) -> None:
        """libvirt may have gone away. One that is asked to end finishes the migration first, and tells nobody."""
        try:
            left = await self._outgoing.has_left(self.runs_there.is_set)
        except VmnetError as late:
            self.notes.append(f"{late.message}: look with `virsh list` on both hosts")
            self.whereabouts_known = False
            left = self.runs_there.is_set()
        if left and not await self._runs_there_soon():
            self.whereabouts_known = False
            self.ended_here = self.failed_there
        if left and not self.ended_here:
            self._has_gone()
        else:
            self.post(Event.FAILED, error)

    async def _runs_there_soon(self) -> bool:
        """The destination's daemon says so, now or within some seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.runs_there.wait(), _FORWARD_S)
        return self.runs_there.is_set()

    def note_resumed(self, resume_ns: int) -> None:
        """The destination says that the guest runs there: then it holds what comes there directly, too."""
        self.resume_ns = resume_ns
        self.runs_there.set()
        self._expected.set()
        if self.fabric is not None:
            self.fabric.expected.set()
        self.tell("resume", at=resume_ns / 1e9)
        self.post(Event.PEER_RESUMED)

    async def is_denied(self) -> bool:
        """The guest is said to run elsewhere, while nobody has told that it stopped; and libvirt says that it runs here."""
        return self.state in (State.PRECOPY, State.SWITCHOVER) and await self._outgoing.is_running_here()

    def _patience_s(self) -> float:
        """How long libvirt may take to say where the guest is."""
        if not (self.hypervisor_lost or self._outgoing.cut_off):
            return DECIDE_S
        if (self.held and self.stop_ns is None) or not self.whereabouts_known:
            return _FORWARD_S  # it may still run here, without its packets
        return AWAY_S

    def _has_gone(self) -> None:
        self.gone = True
        self.post(Event.GONE)

    async def _await_claim(self) -> None:
        """libvirt waits for no hook of ours, so QEMU may begin to copy before the destination's daemon has asked for the VM.

        QEMU is told not to stop the guest meanwhile.
        """
        if self._claim_awaited:
            return
        self._claim_awaited = True
        with contextlib.suppress(VmnetError):
            await self.context.domains.set_max_downtime(self.record.vm, QEMU_WAITS_MS)
        self.spawn(self._give_up_unclaimed())

    async def _give_up_unclaimed(self) -> None:
        await asyncio.sleep(_CLAIM_S)
        if (error := self._unclaimed()) is not None:
            self.post(Event.FAILED, error)

    async def _attach(self) -> None:
        """Also answers the claim: the destination waits for this before its hypervisor may go on."""
        assert self.claim is not None
        if self.router is not None and self.router.forwards:
            self.leaving = RouterLeaving(self.router, self._ask)
        self.wiring = draw(
            self.outlets,
            self.claim,
            self.binding,
            stretch.local_address(self.context.config.listen.tunnel_address, self.claim.tunnel_address),
            self.leaving is not None,
        )
        self.wiring = replace(self.wiring, places=await self._places())
        self.record = replace(self.record, settings=stretch.encode(self.wiring.stretched()))
        await self.context.store.migration_put(self.record)
        await self.journal([*self.wiring.actions(), Action(Kind.SUSPEND, self.record.vm)])
        await self._connect()
        self.fabric = self._fabric()
        guests = [] if self.leaving is not None else self.ports
        self.guest = GuestWatch(
            self._guest_ports(guests), self._guest_addresses, self._ask, self.log, groups=self.router is None
        )
        self.agreed = self._agreement()
        self.attached.set_result(self.agreed)
        for work in self.guest.work():
            self.spawn(work)
        if self.leaving is not None:
            self._links = LinksMove(self, self.leaving, self._expected, self._join_stretched)
            self.spawn(self._links.clone())
        if self.managed:
            self.watch = ConvergenceWatch(
                self.context.domains,
                self.record.vm,
                self.info.driver,
                self.options.max_downtime_ms or self.context.config.switchover.max_downtime_ms,
                self.tell,
                self._nearly_converged,
            )
            self.spawn(self._converge(self.watch))
        else:
            self.spawn(self._notice_the_end())

    @property
    def far_on_ovs(self) -> bool:
        """An Open vSwitch here is to forward for the VM when it is where its LAN is not."""
        return any(not bridges.is_linux_bridge(place.bridge) for place in self.wiring.places.values())

    async def _places(self) -> dict[str, BridgePort]:
        """How this host's bridges treat the ports of interfaces whose LAN is not at the destination."""
        ports = {one.mac: one.tap for one in self.outlets}
        if self.router is not None and self.leaving is not None:  # the taps have left the bridges
            ports |= {mac.hex(":"): port.name for mac, port in self.router.plane.ports.items()}
        bridges_of = self.wiring.bridges
        far = [wire.mac for wire in self.wiring.wires if wire.stretched and wire.mac in bridges_of]
        return {mac: await bridges.place_of(ports[mac], bridges_of[mac]) for mac in far}

    def _guest_ports(self, ports: list[SourcePort]) -> list[GuestPort]:
        bridges = self.wiring.bridges
        return [
            GuestPort(port.tap, port.settings.mac, bridges.get(port.settings.mac.hex(":"), ""))
            for port in ports
        ]

    def _guest_addresses(self) -> frozenset[bytes]:
        """All that the VM has shown at its interfaces but link-local ones, packed."""
        found = (one for port in self.ports for one in port.addresses.found)
        return frozenset(one.packed for one in found if not one.is_link_local)

    async def _connect(self) -> None:
        """All at once: each waits in the kernel. A router's links each by their own tunnel."""
        wiring = self.wiring
        connecting = [asyncio.to_thread(port.connect, wiring.local, wiring.remote) for port in self.ports]
        if self.leaving is not None:
            links = [(wire, self._link_settings(wire)) for wire in wiring.wires]
            connecting.append(self.leaving.attach(links))
        settled(await asyncio.gather(*connecting, return_exceptions=True), [])

    def _link_settings(self, wire: Wire) -> PortSettings:
        return self.port_settings(wire.mac, wire.link_vni, self.wiring.local, self.wiring.remote)

    def _agreement(self) -> Agreement:
        return Agreement(
            self.record.id,
            self.record.mode,
            self.wiring.wires,
            self.wiring.local,
            self.binding.generation,
            self.binding.segment,
            self.binding.home or self.context.host,
            self.fabric.marker if self.fabric is not None else "",
        )

    def _fabric(self) -> LeavingFabric | None:
        if self.context.rerouter is None:
            return None
        ports = [(wire.mac, port) for wire, port in self._pairs() if not wire.stretched]
        links = self.leaving.links if self.leaving is not None else []
        moving = [(wire.mac, link) for wire, link in links if not wire.stretched]
        return (
            LeavingFabric(
                self,
                self.context.rerouter,
                ports,
                moving,
                self._ask,
                self._all_released,
                self.wiring.bridges,
            )
            if ports or moving
            else None
        )

    async def _all_released(self) -> None:
        await self._released.wait()
        if self._links is not None:
            await self._links.moved()

    def _turn_back(self) -> None:
        if self.fabric is not None:
            self.fabric.turn_back()

    def _tells(self, work: Callable[[LeavingFabric], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """A step that there is only if a fabric is told."""

        async def step() -> None:
            if self.fabric is not None:
                await work(self.fabric)

        return step

    async def _converge(self, watch: ConvergenceWatch) -> None:
        try:
            await watch.until_switch()
            if self.leaving is not None:
                await self.leaving.cloned.wait()
            if self.fabric is not None:
                await self._until_prepared(self.fabric)
        except VmnetError as error:
            self.log.info("the progress can no longer be asked for: %s", error)
        else:
            self.post(Event.CONVERGED)
            await watch.hold_qemu_back()

    def _nearly_converged(self) -> None:
        """A look that is late by a turn of somebody else's lets QEMU stop the guest before us."""
        self.context.hurry.begin(self.watch, os.getpid())

    async def _until_prepared(self, fabric: LeavingFabric) -> None:
        """Before the switchover there is no harm in giving up."""
        try:
            await fabric.prepared()
        except VmnetError as error:
            self.post(Event.FAILED, error)
            raise

    async def _notice_the_end(self) -> None:
        """libvirt has no event for a migration that fails before its guest has stopped, and the destination's daemon may have died."""
        while self.state is State.PRECOPY:
            await asyncio.sleep(_LOOK_S)
            if self.state is State.PRECOPY and not await self._outgoing.active():
                await self._find_out(RefusedError(f"libvirt no longer migrates VM {self.record.name!r}"))
                return

    async def _sample(self) -> None:
        while can_roll_back(self.state) and self.state is not State.ROLLING_BACK:
            for port in self.ports:
                port.turn(sampling=self.state is State.PRECOPY and not self.held)
                if self._stands_still_long:
                    port.answer_neighbours()
            await asyncio.sleep(_SAMPLE_S if self.passes else _EARLY_SAMPLE_S)

    @property
    def _stands_still_long(self) -> bool:
        """Neighbours may be about to give the guest up. (A fabric that is told, or a router's data plane, answers itself.)"""
        if self._still_since is None or self.state is not State.STOPPED:
            return False
        alone = self.fabric is None and self.leaving is None
        return alone and time.monotonic() - self._still_since > _ANSWER_AFTER_S

    async def _verify_gates(self) -> None:
        while can_roll_back(self.state) and self.state is not State.ROLLING_BACK:
            await asyncio.gather(*(asyncio.to_thread(port.gate.verify) for port in self.ports))
            await asyncio.sleep(_VERIFY_S)

    async def _expect_peer(self) -> None:
        """A guest that has stopped is not waited for: its frames must be sent after it before its tap goes.

        The request may be late (one packet of it lost costs TCP 200 ms); the destination then expects it when it runs there.
        """
        addresses = {wire.mac: [str(one) for one in port.addresses.found] for wire, port in self._pairs()}
        if self.fabric is not None:
            self.fabric.rehearse()
        senders = {wire.mac: [one.hex() for one in port.senders.headers] for wire, port in self._pairs()}
        self.guest.connections.now()
        asking = self.spawn(
            self._ask(
                "expect",
                addresses=addresses,
                senders=senders,
                **self.guest.told(),
            )
        )
        stopping = self.spawn(self.stopped.wait())
        try:
            await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        asking.add_done_callback(self._told)
        if not self.stopped.is_set():
            asking.result()

    def _told(self, asking: asyncio.Task[Any]) -> None:
        error = None if asking.cancelled() else asking.exception()
        if error is not None:
            self.notes.append(f"the destination was not told in time: {error}")
        elif not asking.cancelled():
            self._expected.set()
            self._last_wanted = asking.result().get("last") is True
            self._say_last()
            if self.fabric is not None:
                self.fabric.expected.set()

    def _say_last(self) -> None:
        """As soon as the guest has sent its last here, if the destination waits for it."""
        if self.fabric is None or self.state not in (State.SWITCHOVER, State.STOPPED):
            return
        if self._last_wanted and self.stopped.is_set():
            self._last_wanted = False
            self.fabric.say_last()

    def _pairs(self) -> list[tuple[Wire, SourcePort]]:
        return list(zip(self.wiring.wires, self.ports, strict=False))

    def _hold_now(self) -> None:
        if self.held or not self.ports or not all(port.connected for port in self.ports):
            return
        for port in self.ports:
            port.hold()
        self.held = True
        self.divert_ns = time.time_ns()

    async def _hold(self) -> None:
        self._hold_now()
        self.tell("divert", at=(self.divert_ns or 0) / 1e9)

    async def _release_if_empty(self) -> None:
        """The guest still runs: give it time to take what it has. If it does not, what is left is stranded, and recovered."""
        if await drained(self.ports, self.stopped, self.put_guest_first):
            await self._release(None)

    async def _release(self, stop_ns: int | None, exact: bool = True) -> None:
        self.released = [await asyncio.to_thread(port.release, stop_ns, exact) for port in self.ports]
        self._released.set()
        self.tell("release", stranded=sum(one.stranded for one in self.released))

    async def _look_again(self, stop_ns: int) -> None:
        """The hypervisor may have stopped the guest by itself just before we let go, and we were told later."""
        late = [await asyncio.to_thread(port.look_again, stop_ns) for port in self.ports]
        if found := [one for one in late if one is not None]:
            self.released += found
            self.followed_in_order = False
            self.notes.append(
                "the guest stopped before it was asked to: packets that it may not have taken were sent after later ones"
            )

    async def _suspend(self) -> None:
        await self._outgoing.suspend(lambda: self.stop_ns is not None)

    async def _recover(self) -> None:
        if not self.held:
            # nobody told of the guest's stop; libvirt removes its tap as soon as it runs elsewhere
            self.followed_in_order = False
            self.notes.append(
                "the VM's stop was not seen: packets that came when its tap had gone may be lost, uncounted"
            )
        self._hold_now()
        if not self.released:
            await self._release(self.stop_ns or self.divert_ns, exact=self.stop_ns is not None)
        elif self.stop_ns is not None:
            await self._look_again(self.stop_ns)
        if self.leaving is None:
            await self._join_stretched()
        if not all(port.copy_complete for port in self.ports):
            self.notes.append(
                "the copy of what was stranded was not complete in time: some frames may be lost"
            )
        with contextlib.suppress(VmnetError):
            self.clock_offset_ns = await self._peer().clock_offset_ns(2)

    async def _join_stretched(self) -> None:
        for device, bridge in self.wiring.stretched().items():
            learns = self.leaving is None
            await stretch.join(self.context.store, self.record.vm, device, bridge, learns)

    async def _move_links(self) -> None:
        if self._links is not None:
            self._links.begin()

    async def _return_links(self) -> None:
        if self._links is not None:
            await self._links.come_back(self.gone)

    async def _stretch(self) -> None:
        if self._links is not None:
            await self._links.moved()
        for device, bridge in self.wiring.stretched().items():
            await stretch.begin(self.context.store, self.record.vm, device, bridge)
        # after the bridge's port has begun to: a moment of neither would lose one
        for wire, port in self._pairs():
            if wire.far_guest:
                port.stop_groups()
        if self.leaving is not None:
            await self.leaving.stop_groups()

    async def _abort_job(self) -> None:
        """A migration that somebody else began goes on without us when our part fails; it is aborted only on request."""
        if self.managed or self.abort_requested:
            await self._abort_libvirts_job()
        if not self._has_left():
            self._turn_back()

    async def _abort_libvirts_job(self) -> None:
        try:
            await self._outgoing.abort(self._has_left, self._turn_back, self._patience_s)
        except WaitTimeoutError:
            self.whereabouts_known = False
            raise

    def lose_hypervisor(self) -> None:
        super().lose_hypervisor()
        self._look_whether_it_has_gone()

    def _look_whether_it_has_gone(self) -> None:
        """The VM runs at the destination, and libvirt may have removed it here while it could tell nobody."""
        may_run_there = self.state in (State.STOPPED, State.RESUMED, State.FINISHING)
        if may_run_there and self.hypervisor_lost and not self.managed and not self._looks:
            self._looks = True
            self.spawn(self._find_out(RefusedError("libvirt went away")))

    def _has_left(self) -> bool:
        return self.runs_there.is_set() or (self.gone and not self.ended_here)

    async def _reopen(self) -> None:
        if self.held and not self.gone:
            for port in self.ports:
                reopened = await asyncio.to_thread(port.reopen)
                self.reopened.append(reopened)
                self.tell("reopened", frames=reopened.frames, missing=reopened.missing)

    async def _resume_guest(self) -> None:
        if not self.gone:
            await self._outgoing.resume()

    async def _cancel_peer(self) -> None:
        if self.claim is not None:
            await self._ask("cancel", reason=str(self.error or "cancelled")[:200])

    async def _retire(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(port.retire) for port in self.ports))

    async def _finish_peer(self) -> None:
        self.tunnel_sent = [port.tunnel_sent for port in self.ports]
        with contextlib.suppress(VmnetError):  # it finishes by itself, later
            self.final_counts = await self._ask("finish", sent=self.tunnel_sent, autostart=self.autostart)

    async def _detach(self) -> None:
        if self.fabric is not None:
            await self.fabric.stand_ins.leave(late=self.state is State.DONE)
        kept = self.wiring.stretched() if self.state is State.DONE else {}
        for port in self.ports:
            await asyncio.to_thread(port.close, port.tunnel in kept)
        self.ports = []
        if self.leaving is not None:
            await self.leaving.close(gone=self.state is State.DONE)
        if self.router is not None and self.state is State.DONE:
            await self.context.routers.forget(self.record.vm, self.router)
        came_home = self.state is State.DONE and not kept
        never_left = self.state is not State.DONE and self.wiring.stretched()
        if came_home or never_left:
            await stretch.end(self.context.store, self.record.vm)

    async def _verdict(self) -> None:
        verdict = source_verdict(self)
        self.record = replace(self.record, verdict=verdict.to_json())
        self.tell("verdict", verdict=verdict.to_json(), lines=verdict.lines())

    # -- the other side --------------------------------------------------------------------------------------------

    def _peer(self) -> Any:
        return self.context.peers[self.record.destination]

    async def _ask(self, op: str, **payload: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self._peer().request(op, {"id": self.record.id, **payload}, _PEER_S)
        return answer
