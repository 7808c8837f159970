"""The host a VM comes to: how each step of the machine's destination side is done."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dom0 import bridges, outgoing_setup, stretch
from dom0.bound import agreed_binding
from dom0.claim import Agreement, Wire
from dom0.conntrack.receiving import ConntrackReceiver
from dom0.context import Context
from dom0.dataplane import names, netdev
from dom0.dataplane.destination_port import DestinationPort, Opened
from dom0.dataplane.kernel_limits import SPARE_PACKETS
from dom0.flow_setup import FlowSetup
from dom0.guest_announcements import GuestAnnouncements
from dom0.marker_wait import MarkerWait
from dom0.migration import Migration, settled
from dom0.own_flows import OwnFlows
from dom0.own_order import OwnOrder
from dom0.router.arriving import RouterArriving
from dom0.stand_ins import StandIns
from vmnet import domain_xml
from vmnet.actions import Action, Kind
from vmnet.domain_xml import DomainInfo
from vmnet.errors import NotFoundError, PeerError, RefusedError, StaleGenerationError, VmnetError
from vmnet.hypervisor.events import DomainEvent, Happening
from vmnet.machine import Event, Role, State, Step
from vmnet.store import Binding, MigrationRecord

_PEER_S = 5.0
_FINISH_S = 30.0
_PREPARE_S = 120.0
_UNDER_WAY_S = 0.2
_LOOK_AGAIN_S = 0.005
_CLONE_S = 60.0
_LET_GO_S = 2.0
_TOLD_AGAIN_S = 0.005
_OVS_TOLD_AGAIN_S = 0.02
"""Longer than its threads take to follow: while they count what flows have carried, it may forget once more."""


def check_unused(agreement: Agreement) -> None:
    """RefusedError if a tunnel that the peer has chosen is here already: to undo ours would remove another migration's."""
    chosen = [vni for wire in agreement.wires for vni in (wire.vni, wire.link_vni) if vni]
    here = netdev.all_names()
    taken = [vni for vni in chosen if chosen.count(vni) > 1 or names.tunnel_name(vni) in here]
    if taken:
        raise RefusedError(
            f"the peer's tunnel {taken[0]} is in use here already", "migrate again: it chooses another one"
        )


class DestinationMigration(Migration):
    role = Role.DESTINATION

    def __init__(self, context: Context, record: MigrationRecord, info: DomainInfo) -> None:
        super().__init__(context, record, State.PREPARING)
        self.info = info
        self.agreed: asyncio.Future[Agreement] = asyncio.get_running_loop().create_future()
        self.let_go = asyncio.Event()
        """Set when the hypervisor, which waits in its hook, may go on."""
        self.ports: list[DestinationPort] = []
        self.taps: dict[str, str] = {}
        self.announcements = GuestAnnouncements()
        self.resume_ns: int | None = None
        self._opened: dict[str, Opened] = {}
        """By tunnel."""
        self.connections = ConntrackReceiver(self.log)
        self._was_far = False
        """This host has forwarded for the VM while it was where its LAN is not."""
        self._direct_wait_ms = 0.0
        """From when the guest ran until the last interface let in what had waited there."""
        self.ordered = True
        self._stand_ins: StandIns | None = None
        """If the fabric is told."""
        self.given_back = asyncio.Event()
        """The source has what had come here directly."""
        self.arriving: RouterArriving | None = None
        """If the VM is a router whose data plane comes with it."""
        self._announcing: asyncio.Task[None] | None = None
        self._flows: FlowSetup | None = None
        """If an Open vSwitch is to have flows before the guest runs here."""
        self._senders: dict[str, object] | None = None
        """Who has sent to the guest, once the source has said so."""
        self._own: OwnOrder | None = None
        """If what the guest sends here waits for what it sent at the source."""
        self._letting_out: set[asyncio.Task[None]] = set()
        self._resumed = asyncio.Event()
        self.runs = False
        """The guest runs here."""
        self.binding: Binding | None = None
        self.steps = {
            Step.PREPARE_DESTINATION: self._prepare,
            Step.ATTACH_DESTINATION: self._attach,
            Step.MAKE_ROOM: self._make_room,
            Step.EXPECT: self._expect,
            Step.TAKE_LINKS: self._take_links,
            Step.LET_IN: self._let_in,
            Step.BIND: self._bind,
            Step.ANNOUNCE: self._announce,
            Step.TELL_RESUMED: self._tell_resumed,
            Step.TELL_PAUSED: self._tell_paused,
            Step.ANNOUNCE_AGAIN: self._announce_again,
            Step.TELL_FAILED: self._tell_failed,
            Step.OPEN: self._open,
            Step.TELL_OPEN: self._tell_open,
            Step.DETACH_DESTINATION: self._detach,
            Step.VERDICT: self._verdict,
        }

    # -- what happens to the domain ----------------------------------------------------------------------------------

    def hypervisor_event(self, event: DomainEvent) -> None:
        happening = event.happening
        if happening in (Happening.GUEST_RESUME, Happening.RESUMED):
            if self.resume_ns is None and self.state in (State.PREPARED, State.READY, State.EXPECTING):
                self.resume_ns = event.time_ns
                self.tell("resume", at=event.time_ns / 1e9)
            self.runs = True
            self.post(Event.GUEST_RUNNING)
        elif happening is Happening.SUSPENDED and event.detail == "paused":
            self.post(Event.ARRIVED_PAUSED)
        elif happening is Happening.STOPPED:
            self.post(Event.GONE)

    def entered(self) -> None:
        if self.state is State.ROLLING_BACK:
            self.let_go.set()

    def guest_may_come_first(self) -> bool:
        """An Open vSwitch has to notice that the guest is here, and to change its flows, before it runs."""
        return not any(port.on_ovs for port in self.ports)

    def after(self, event: Event) -> None:
        if self.state is State.PREPARED:
            self.expect_within(_PREPARE_S, Event.FAILED, "the hypervisor did not make the incoming VM")
        if self.state is State.READY and self.runs:  # the hypervisor did not wait, and was quicker
            self.post(Event.GUEST_RUNNING)
        if self.state is State.OPEN:
            self.expect_within(
                _FINISH_S, Event.FINISH, "the source's daemon did not say that it has finished"
            )

    # -- steps --------------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """What needs no tap: while the hypervisor is still making the guest."""
        agreement = self.agreed.result()
        local = stretch.local_address(self.context.config.listen.tunnel_address, agreement.tunnel_address)
        vnis = {vni for one in agreement.wires for vni in (one.vni, one.lan_vni)}
        check_unused(agreement)
        self._was_far = bool(await self.context.store.journal(stretch.journal_id(self.record.vm)))
        await self.journal([Action(Kind.TUNNEL, names.tunnel_name(vni)) for vni in vnis])
        if self.info.router is not None and any(one.link_vni for one in agreement.wires):
            await self._prepare_router(agreement, local)
        making = [
            asyncio.to_thread(
                DestinationPort,
                self.port_settings(one.mac, one.vni, local, agreement.tunnel_address),
                one.far_guest,
                one.link_vni > 0,
            )
            for one in agreement.wires
        ]
        settled(await asyncio.gather(*making, return_exceptions=True), self.ports)
        if agreement.mode == "managed":
            self.context.marks.prepared.add(self.record.name)

    async def _prepare_router(self, agreement: Agreement, local: str) -> None:
        self.arriving = RouterArriving(await self.context.routers.prepare(self.info))
        await self.arriving.attach(
            [
                (one, self.port_settings(one.mac, one.link_vni, local, agreement.tunnel_address))
                for one in agreement.wires
            ]
        )
        await self._ask("clone")

    async def _attach(self) -> None:
        """The hypervisor waits for this."""
        if self.arriving is not None:
            await self.arriving.router.connect(self.taps)
        taps = [self._tap(one) for one in self.agreed.result().wires]
        kept = {port.tunnel: tap for port, tap in zip(self.ports, taps, strict=True) if port.stretched}
        if kept:
            self.record = replace(self.record, settings=stretch.encode(kept))
            await self.context.store.migration_put(self.record)
        await self.journal([action for tap in taps for action in self._changes(tap)])
        pairs = zip(self.ports, taps, strict=True)
        await asyncio.gather(*(asyncio.to_thread(port.attach, tap) for port, tap in pairs))

    def _tap(self, one: Wire) -> str:
        tap = self.taps.get(one.mac)
        if tap is None:
            raise RefusedError(
                f"the incoming VM has no interface with MAC {one.mac}", "its XML was changed on the way"
            )
        return tap

    def _changes(self, tap: str) -> list[Action]:
        room = str(self.context.config.hold.max_packets + SPARE_PACKETS)
        return [
            Action(Kind.QUEUE, tap, room, str(netdev.get_queue_length(tap))),
            Action(Kind.GATE, tap),
            Action(Kind.WIRE, tap),
            *([Action(Kind.STEER, tap)] if netdev.may_have_queues(tap) else []),
        ]

    async def _make_room(self) -> None:
        """A managed switchover asks us first, and so waits for this; QEMU's own does not: then the hypervisor has to."""
        if self.agreed.result().mode == "managed":
            self.let_go.set()
        await asyncio.gather(*(asyncio.to_thread(port.make_room) for port in self.ports))
        await self._curb()
        await self._allow_setup()
        if self.arriving is not None:
            await asyncio.wait_for(self.arriving.cloned.wait(), _CLONE_S)
        self.let_go.set()
        if self._marker:
            self._let_stand_in()

    async def _curb(self) -> None:
        """It is for order alone: without it the migration goes on."""
        if not self._marker:
            return
        ports = [port for port in self.ports if port.bridged and not port.on_ovs]
        if not ports:
            return
        try:
            await asyncio.gather(*(asyncio.to_thread(port.curb) for port in ports))
            self._own = OwnOrder(ports, self._marker)
        except OSError as error:
            self.log.warning("what the guest sends is not held: %s", error)

    async def _allow_setup(self) -> None:
        """It is for order alone, too."""
        ports = [port for port in self.ports if port.on_ovs]
        if not ports:
            return
        try:
            await asyncio.gather(*(asyncio.to_thread(port.allow_setup) for port in ports))
            await asyncio.gather(*(asyncio.to_thread(port.curb) for port in ports))
        except OSError as error:
            self.log.warning("the switch is not made to set up its flows: %s", error)
        else:
            self._flows = FlowSetup(ports)
            self.spawn(self._flows.keep_looking())

    @property
    def holds_own(self) -> bool:
        """What the guest sends waits until the source has said that nothing of its is under way any more."""
        return self._own is not None

    async def _uncurb(self) -> None:
        for task in self._letting_out:
            if not self._resumed.is_set():  # it never ran here, and has sent nothing
                task.cancel()
        if self._letting_out:
            await asyncio.wait(self._letting_out)
        if self._own is not None:
            self._own.close()

    async def _let_out(self, own: OwnOrder) -> None:
        in_order = await own.let_go(self._resumed)
        self.tell("let-out", ordered=in_order, rehearsed=own.rehearsed)
        if not in_order:
            self._out_of_order(
                "what the guest had sent at the source may have been overtaken by what it sends here"
            )

    async def _let_own_flows(self, own: OwnFlows) -> None:
        if not await own.let_go(self._resumed):
            self._out_of_order(
                f"the Open vSwitch on {self.context.host} had no flow yet for what the VM sent first: "
                "some of these packets may have overtaken each other"
            )

    def _out_of_order(self, why: str) -> None:
        self.ordered = False
        self.notes.append(why)

    def _hold_own(self) -> None:
        """What the guest sends waits here, as far as its order may suffer."""
        if self._own is not None:
            self._own.hold()
            self._letting_out.add(self.spawn(self._let_out(self._own)))
        if self._flows is not None:
            switches = self._flows.switches
            flows = OwnFlows(
                {port: switches.get(port.settings.mac.hex(":")) for port in self.ports if port.on_ovs}
            )
            flows.hold()
            self._letting_out.add(self.spawn(self._let_own_flows(flows)))

    async def own_let_go(self) -> None:
        """Until nothing that the guest sends waits any more, and its order is known, if it runs here; two seconds at most."""
        if self._letting_out and self._resumed.is_set():
            await asyncio.wait(self._letting_out, timeout=_LET_GO_S)

    def note_senders(self, senders: dict[str, object]) -> None:
        """As the source says, with its request to expect the guest; once the guest runs it is too late for their flows."""
        if self._senders is None:
            self._senders = senders
            if self.state is not State.READY:
                self._want_flows()

    def _want_flows(self) -> None:
        """What comes directly waits here, and who sends is known."""
        if self._senders is None:
            return
        if self._flows is not None:
            self._flows.want(self._senders)
            self.spawn(self._flows.set_up())
        if self._marker:
            ports = [(port, bridge) for port, bridge in self._bridged_ports() if bridge and port.bridged]
            self.spawn(outgoing_setup.set_up(ports, self._senders, self._resumed))

    def _bridged_ports(self) -> list[tuple[DestinationPort, str | None]]:
        """Those whose LAN is here, each with its bridge."""
        bridges = {one.mac: one.bridge for one in self.info.interfaces}
        return [(port, bridges.get(port.settings.mac.hex(":"))) for port in self.ports if not port.stretched]

    def _let_stand_in(self) -> None:
        self._stand_ins = StandIns(self, self._bridged_ports())
        self._stand_ins.join()

    async def fib(self, message: dict[str, Any]) -> None:
        """A part of a router's FIB from the source. PeerError if nobody asked for it."""
        if self.arriving is None:
            raise PeerError("a FIB for a VM that is no router here")
        await self.arriving.fib(message)

    async def _expect(self) -> None:
        if self.arriving is not None:
            self.arriving.expect()
        for port in self.ports:
            port.expect()
        self._note_unsteered()
        self.announcements.cover(port.settings.mac for port in self.ports)
        self._want_flows()
        self._hold_own()
        self.spawn(self._keep_told())

    def _note_unsteered(self) -> None:
        taps = [port.tap for port in self.ports if port.unsteered]
        if taps:
            self.notes.append(
                f"{self.context.host} could not send all by the first queue of {', '.join(taps)}: "
                "a packet of each other queue may be lost, uncounted"
            )

    async def _keep_told(self) -> None:
        """An Open vSwitch may forget. And a fabric that is told sends here before the guest has said anything here, and what it says
        at the source may yet be flooded to us."""
        told = [port for port in self.ports if port.on_ovs or (self._marker and port.bridged)]
        again_s = _OVS_TOLD_AGAIN_S if any(port.on_ovs for port in told) else _TOLD_AGAIN_S
        while told and self.state is State.EXPECTING:
            for port in told:
                port.tell_switch()
            await asyncio.sleep(again_s)

    async def _take_links(self) -> None:
        if self.arriving is not None:
            self.arriving.speak()
            await self.arriving.thaw()
            self.spawn(self._announce_links(self.arriving))

    async def _announce_links(self, arriving: RouterArriving) -> None:
        """As :meth:`_announce_until_marked`, for the links: data that arrives directly is let in when the old path is empty."""
        if await self._marker_wait().until_marked(arriving.waiting(), lambda link: link.announce()):
            self._not_marked("the router's links")
        await arriving.open()
        self.ordered = self.ordered and arriving.ordered
        self.tell("links-taken", direct=sum(one.opened.direct for one in arriving.links if one.opened))

    async def _let_in(self) -> None:
        if self.arriving is not None:
            self.arriving.router.hush_later()
        self._resumed.set()
        if self._flows is not None:
            self._flows.resumed()
        for port in self.ports:
            port.resumed()

    async def _announce(self) -> None:
        self._announcing = self.spawn(self._announce_until_marked())

    async def _announce_again(self) -> None:
        """The VM runs long after it has come: its neighbours may have forgotten it."""
        self._announce_others()
        for port in self.ports:
            if not port.stretched:
                self._announce_at(port)

    async def _announce_until_marked(self) -> None:
        """Announce, and let in what arrives directly at each interface once its old path is empty."""
        if self.arriving is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.arriving.taken.wait(), self._marker_limit_s)
        self._announce_others()
        bridges_of = {id(port): bridge for port, bridge in self._bridged_ports()}
        waiting: list[DestinationPort] = []
        for port in (one for one in self.ports if not one.stretched):
            if netdev.has_only_guests(bridges_of[id(port)] or ""):  # nothing comes there from outside
                self._announce_at(port)
                await self._open_port(port)
            else:
                waiting.append(port)
        for late in await self._marker_wait().until_marked(waiting, self._announce_at, self._open_port):
            bridge = bridges_of[id(late)]
            self._not_marked(
                f"the VM's interface on {bridge or 'no bridge'} (is that a LAN of both hosts? else give it a segment)"
            )
        self._announce_others()
        self.tell("marker", ordered=self.ordered)
        self.post(Event.MARKER)

    def _announce_others(self) -> None:
        """Stations behind the interfaces, and the groups. Twice: a frame may be lost, and nothing comes back that would tell."""
        for port in self.ports:
            if not port.stretched:
                port.announce(self.announcements.others(port.settings.mac))

    def _announce_at(self, port: DestinationPort) -> None:
        port.announce(self.announcements.own(port.settings.mac))

    def _not_marked(self, what: str) -> None:
        self._out_of_order(
            f"no announcement came back by the old path within {self._marker_limit_s:g} s at {what}"
        )

    @property
    def _marker_limit_s(self) -> float:
        return self.context.config.switchover.marker_timeout_ms / 1000

    def _marker_wait(self) -> MarkerWait:
        return MarkerWait(self._marker, self._marker_limit_s)

    @property
    def _marker(self) -> bytes:
        """The source's own; empty: the announcement marks the old path's end, when it comes back by it."""
        return bytes.fromhex(self.agreed.result().marker)

    async def go_back(self) -> dict[str, int]:
        """The guest stays at the source, and so must what has come here directly: frames sent there, by MAC. PeerError: too late."""
        if self.state not in (State.READY, State.EXPECTING, State.ROLLING_BACK):
            raise PeerError(f"the VM is in state '{self.state.value}' on {self.context.host}")
        try:
            return {port.settings.mac.hex(":"): await asyncio.to_thread(port.go_back) for port in self.ports}
        finally:
            self.given_back.set()

    async def _bind(self) -> None:
        agreement = self.agreed.result()
        first = self.info.interfaces[0] if self.info.interfaces else None
        binding = replace(
            agreed_binding(agreement, self.record.vm, self.record.name, self.context.host),
            bridge=(first.bridge or "") if first else "",
            port=",".join(self.taps.values()),
        )
        store = self.context.store
        known = await store.binding_get(self.record.vm)
        if known is not None and known.generation > agreement.generation:
            raise StaleGenerationError(
                f"VM {self.record.name!r} was bound with generation {agreement.generation}, but {known.generation} is known here"
            )
        if known is None or known.generation < agreement.generation:
            await store.binding_learn(binding)
        self.binding = await store.binding_claim(binding, agreement.generation)
        await self._ask("bound", binding=self.binding.to_json())

    async def _tell_resumed(self) -> None:
        await self._ask("resumed", resume_ns=self.resume_ns or time.time_ns())

    async def _tell_paused(self) -> None:
        await self._ask("paused")

    async def _tell_failed(self) -> None:
        with contextlib.suppress(NotFoundError):  # it has given up before us
            await self._ask("failed", reason=str(self.error or "the incoming VM ended")[:200])

    async def _open(self) -> None:
        # a VM that has come paused may be resumed before the old path is known to be empty
        if self._announcing is not None:
            await asyncio.wait({self._announcing})
        if self.arriving is not None:
            await self.arriving.open()
        for port in self.ports:
            await self._open_port(port)

    async def _open_port(self, port: DestinationPort) -> None:
        """Once: an interface does not wait for the others'."""
        if port.tunnel in self._opened:
            return
        opened = self._opened[port.tunnel] = await asyncio.to_thread(port.open)
        if opened.direct and self.resume_ns is not None:
            self._direct_wait_ms = max(self._direct_wait_ms, (time.time_ns() - self.resume_ns) / 1e6)

    async def _tell_open(self) -> None:
        await self._ask("open", counts=self.counts())

    def settle_definition(self, autostart: bool) -> None:
        """The VM's definition, which has come with it if it has one, is to hold here as well."""
        self.spawn(self._settle_definition(autostart))

    async def _settle_definition(self, autostart: bool) -> None:
        mapping = self.context.config.binding
        try:
            if mapping:
                kinds = await bridges.which_are_ovs(mapping.values())
                await self.context.domains.redefine(
                    self.record.vm, lambda xml: domain_xml.rebind(xml, mapping, kinds)
                )
            if autostart:
                await self.context.domains.start_with_host(self.record.vm)
        except VmnetError as error:
            self.log.warning("VM %s is not defined here as it was: %s", self.record.name, error)

    async def unreceived(self, sent: Sequence[int]) -> int:
        """How many of the frames that the source has sent into the tunnels, by interface, have not come out of them.

        Blocks up to 0.2 s while some may still be under way: the question comes by another connection than the frames.
        """
        pairs = list(zip(sent, self.ports, strict=False))
        deadline = time.monotonic() + _UNDER_WAY_S
        while True:
            missing = sum(max(0, number - port.tunnel_received) for number, port in pairs)
            if not missing or time.monotonic() > deadline:
                return missing + sum(sent[len(pairs) :])
            await asyncio.sleep(_LOOK_AGAIN_S)

    def counts(self) -> dict[str, Any]:
        gates = [port.counts() for port in self.ports]
        opened = self._opened.values()
        return {
            "direct": sum(one.direct for one in opened),
            "direct_wait_ms": round(self._direct_wait_ms),
            "twice": sum(one.twice for one in opened),
            "missing": sum(one.missing for one in opened) + sum(port.outgoing_lost for port in self.ports),
            "overflow": sum(one.overflow for one in gates),
            "tunnelled": sum(one.tunnelled for one in gates),
            "taken_away": sum(one.taken_away for one in gates),
            "ordered": self.ordered,
            "notes": list(dict.fromkeys(self.notes)),
            "far_on_ovs": self._was_far and any(port.on_ovs for port in self.ports),
            "without_flow": self._flows.missing_at_resume if self._flows is not None else 0,
            "generation": self.binding.generation if self.binding is not None else 0,
            "hold_limit": self.context.limits.queue_packets if self.context.limits.short else 0,
        }

    async def _detach(self) -> None:
        done = self.state is State.DONE
        if not done:
            await self.connections.give_back()
        if self.arriving is not None and not done:
            await self._give_links_back(self.arriving)
        if not done and any(port.keeps for port in self.ports):
            await self._until_given_back(self.given_back)
        if self._stand_ins is not None:
            await self._stand_ins.leave(late=done)
        await self._uncurb()
        stretched = [port for port in self.ports if port.stretched and done]
        far = done and any(wire.stretched for wire in self.agreed.result().wires)
        for port in stretched:
            await stretch.keep(self.context.store, self.record.vm, port.tunnel, port.tap)
        if done and not far:
            await stretch.end(self.context.store, self.record.vm)
        for port in self.ports:
            await asyncio.to_thread(port.close, port in stretched)
        if self.arriving is not None:
            await self._detach_router(self.arriving, done)

    async def _give_links_back(self, arriving: RouterArriving) -> None:
        """The VM does not come, but the source's data comes here: this data plane goes on until the source forwards again."""
        if arriving.carries:
            await self._until_given_back(arriving.given_back)

    async def _until_given_back(self, given_back: asyncio.Event) -> None:
        if not given_back.is_set():
            with contextlib.suppress(VmnetError):
                await self._tell_failed()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(given_back.wait(), _PEER_S)

    async def _detach_router(self, arriving: RouterArriving, done: bool) -> None:
        if done:
            for link in arriving.links:
                if link.stretched:
                    await stretch.keep(self.context.store, self.record.vm, link.tunnel, link.port.name)
        await arriving.close()
        if not done:
            await self.context.routers.forget(self.record.vm, arriving.router)

    async def _verdict(self) -> None:
        self.tell("ended", state=self.state.value)

    # -- the other side -------------------------------------------------------------------------------------------------

    async def _ask(self, op: str, **payload: Any) -> dict[str, Any]:
        peer = self.context.peers[self.record.source]
        return await peer.request(op, {"id": self.record.id, **payload}, _PEER_S)
