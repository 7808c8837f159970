"""All migrations of this host: starts them, and hands them what hooks, peers, the hypervisor and people say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Coroutine
from typing import Any
from weakref import WeakValueDictionary

from controller_bridge.rerouters.base import Releases
from dom0 import bridges, elsewhere, peer_words, preflight, stretch, wiring
from dom0.claim import Agreement, address_field, agreement, uuid_field
from dom0.context import Context
from dom0.control_server import HookAnswer, HookCall
from dom0.dataplane import classifier
from dom0.destination import DestinationMigration
from dom0.migration import Migration
from dom0.options import Options
from dom0.router.router import Router
from dom0.source import SourceMigration
from dom0.wiring import ClaimRequest
from vmnet import domain_xml
from vmnet.errors import NotFoundError, PeerError, RefusedError, VmnetError, WaitTimeoutError
from vmnet.hypervisor.events import DomainEvent, Happening
from vmnet.machine import Event, State, can_roll_back
from vmnet.store import Binding, MigrationRecord, join_segments

log = logging.getLogger(__name__)
_CLAIM_S = 5.0
_AGREE_S = 60.0
"""A peer that is slow, or cannot be reached, is asked again for so long, unless the guest runs before."""
_AGAIN_S = 0.2
"""Between two claims: a peer may answer with an error at once."""
_BARRIER_S = 15.0
_OTHERS_S = 0.25
_MOST_TOLD = 4096
_COMING_S = 600.0
"""Between libvirt's first word of an incoming VM and its tap: a minute was seen (AppArmor's parser on a busy host)."""


async def make_taps_ready(info: domain_xml.DomainInfo) -> None:
    """So that a gate can be put on them later without losing a frame."""
    for _one, tap in wiring.with_taps(info):
        try:
            await asyncio.to_thread(classifier.make_ready, tap)
        except OSError as error:
            log.warning("cannot make %s ready: %s", tap, error)


class Desk:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.migrations: dict[str, Migration] = {}
        self._coming: dict[str, float] = {}
        """By uuid: when libvirt said that the VM would come."""
        self._claiming: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._told_by: dict[str, str] = {}
        """By uuid: the peer whose preflight said last that the VM is about to come."""
        self._tasks: set[asyncio.Task[None]] = set()

    def of_vm(self, vm: str) -> Migration | None:
        return next(iter(self._under_way(vm)), None)

    def _under_way(self, vm: str) -> list[Migration]:
        """The oldest first."""
        return [one for one in self.migrations.values() if one.record.vm == vm and not one.final]

    def _coming_to_us(self, vm: str) -> DestinationMigration | None:
        """The newest: the VM's last leaving may not be over yet."""
        found = [one for one in self._under_way(vm) if isinstance(one, DestinationMigration)]
        return found[-1] if found else None

    def _begin(self, migration: Migration) -> None:
        self.migrations[migration.record.id] = migration
        migration.start()
        self._keep(self._forget(migration))
        self._keep(self.context.tunnel_filter.ensure())

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """A task lives only as long as somebody holds it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forget(self, migration: Migration) -> None:
        await asyncio.shield(migration.finished())
        self.migrations.pop(migration.record.id, None)
        if isinstance(migration, DestinationMigration):
            self.context.marks.discard(migration.record.name)
            if migration.state is State.DONE and migration.arriving is None:
                await self._router_may_run(migration.record.vm)
        with contextlib.suppress(VmnetError):  # then a second start is not noticed, and nothing else
            await elsewhere.refresh(self.context)

    # -- the hypervisor ----------------------------------------------------------------------------------------------

    def hypervisor_event(self, event: DomainEvent) -> None:
        migration = self.of_vm(event.uuid)
        if isinstance(migration, SourceMigration | DestinationMigration):
            migration.hypervisor_event(event)
        elif event.happening is Happening.STOPPED:
            self._keep(self._ended(event, self.context.routers.of(event.uuid)))
        elif event.happening in (Happening.STARTED, Happening.RESUMED):
            self._keep(self._router_may_run(event.uuid))

    async def _ended(self, event: DomainEvent, router: Router | None) -> None:
        """libvirt may say so after its migration has returned: what that is still taking apart hangs on ``router``'s ports."""
        await self._closed(event.uuid)
        if router is not None and self.context.routers.of(event.uuid) is router:
            self.context.routers.vm_gone(event.uuid, event.detail)
        if event.detail != "migrated":
            await self._release(event.uuid)

    async def _release(self, vm: str) -> None:
        """It has ended here, and may be started anywhere."""
        rerouter = self.context.rerouter
        if not isinstance(rerouter, Releases):
            return
        try:
            binding = await self.context.store.binding_get(vm)
            if binding is not None and binding.host == self.context.host:
                await rerouter.release(binding.macs)
        except VmnetError as error:
            log.warning("the fabric still leads to %s for VM %s: %s", self.context.host, vm, error)

    async def make_ready(self) -> None:
        """VMs that started while no daemon ran: their taps may drop frames for a moment, once, now."""
        for _name, vm in await self.context.domains.names():
            with contextlib.suppress(VmnetError):
                await make_taps_ready(domain_xml.parse((await self.context.domains.find(vm)).xml.encode()))

    # -- people --------------------------------------------------------------------------------------------------------

    async def plan(
        self, name: str, destination: str, allow_unprotected: bool = False, coming: bool = False
    ) -> tuple[domain_xml.DomainInfo, list[str]]:
        """Preflight. RefusedError with every reason against it; else the VM and what is worth knowing.

        ``coming``: it is not only asked, the VM is about to go there.
        """
        if destination != self.context.host and destination not in self.context.config.peers:
            known = ", ".join(self.context.config.peers) or "none"
            raise NotFoundError(
                f"unknown host {destination!r} (known: {known})", f"configure [peers.{destination}]"
            )
        state = await self.context.domains.find(name)
        info = domain_xml.parse(state.xml.encode())
        if not state.running:
            raise RefusedError(f"VM {info.name!r} is paused", "resume it first (`virsh resume`)")
        if self.of_vm(info.uuid) is not None:
            raise RefusedError(f"VM {info.name!r} is being migrated already", "see `vmnet status`")
        router = self.context.routers.of(info.uuid)
        if router is not None:
            router.check_may_move()
        return info, await preflight.ask(self.context, info, destination, coming, allow_unprotected)

    async def migrate(self, name: str, destination: str, options: Options) -> SourceMigration:
        self.context.domains.get_ready()
        info, notes = await self.plan(name, destination, options.allow_unprotected, coming=True)
        migration = await self._source(info, destination, "managed", options)
        migration.notes += notes
        migration.post(Event.ACCEPTED)
        return migration

    async def _source(
        self, info: domain_xml.DomainInfo, destination: str, mode: str, options: Options
    ) -> SourceMigration:
        await self._closed(info.uuid)
        binding = await self._binding(info)
        record = self._record(info, self.context.host, destination, "source", mode, str(uuid.uuid4()))
        migration = SourceMigration(self.context, record, info, binding, options)
        self._begin(migration)
        return migration

    async def _closed(self, vm: str) -> None:
        """What an earlier migration of the VM has made here is gone: it ends some time after its verdict."""
        closing = [one.finished() for one in self.migrations.values() if one.record.vm == vm and one.final]
        if closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asyncio.gather(*closing)), _CLAIM_S)

    def _record(
        self, info: domain_xml.DomainInfo, source: str, destination: str, role: str, mode: str, identity: str
    ) -> MigrationRecord:
        return MigrationRecord(
            id=identity,
            vm=info.uuid,
            name=info.name,
            source=source,
            destination=destination,
            role="source" if role == "source" else "destination",
            mode="managed" if mode == "managed" else "hooks",
            started=time.time(),
        )

    async def _binding(self, info: domain_xml.DomainInfo) -> Binding:
        """This host's binding of the VM; a VM nobody has bound yet is bound here with generation 1."""
        store, host = self.context.store, self.context.host
        known = await store.binding_get(info.uuid)
        if known is not None and known.active and known.host == host:
            return known
        bridge = next((one.bridge for one in info.interfaces if one.bridge), "") or ""
        mine = Binding(
            vm=info.uuid,
            name=info.name,
            host=host,
            bridge=bridge,
            port=",".join(str(one.target_dev) for one in info.interfaces if one.target_dev),
            macs=tuple(one.mac for one in info.interfaces),
            segment=join_segments(
                {one.mac: self.context.segment_of(one.bridge or "") for one in info.interfaces}
            ),
        )
        return await store.binding_claim(mine, known.generation if known is not None else None)

    # -- hooks ---------------------------------------------------------------------------------------------------------

    async def hook(self, call: HookCall) -> HookAnswer:
        """Only an incoming migration concerns us; everything else is answered at once."""
        if not call.xml:
            return HookAnswer()
        if (call.op, call.subop) == ("migrate", "begin"):
            return await self._incoming(call)
        info = domain_xml.parse(call.xml)
        if (call.op, call.subop) == ("prepare", "begin"):
            if call.driver != "qemu":  # Xen's may be a migration's
                return HookAnswer()
            coming = self._announced(info.uuid) or info.name in self.context.marks.expected
            return HookAnswer(refuse="" if coming else await elsewhere.second_start(self.context, info))
        if (call.op, call.subop) == ("start", "begin"):
            self._begin_claim(info)
        elif (call.op, call.subop) == ("started", "begin"):
            self._begin_claim(info)  # if the call before was lost, or is late
            await self._tap_ready(info)
        elif call.op in ("stopped", "release") and call.subop == "end":
            migration = self.of_vm(info.uuid)
            if isinstance(migration, DestinationMigration):
                migration.post(Event.GONE)
        return HookAnswer()

    async def _incoming(self, call: HookCall) -> HookAnswer:
        info = domain_xml.parse(call.xml)
        mapping = self.context.config.binding
        kinds = await bridges.which_are_ovs(mapping.values())
        rebound = domain_xml.rebind(call.xml, mapping, kinds)
        self._coming[info.uuid] = time.monotonic()
        return HookAnswer(xml=rebound or b"")

    def _announced(self, vm: str) -> bool:
        """libvirt has said that it comes."""
        return time.monotonic() - self._coming.get(vm, -_COMING_S) < _COMING_S

    def _begin_claim(self, info: domain_xml.DomainInfo) -> None:
        """Now that libvirt has made the taps: what we make waits for the same locks of the kernel. It starts QEMU meanwhile."""
        announced = self._announced(info.uuid)
        self._coming.pop(info.uuid, None)
        expected = info.name in self.context.marks.expected
        if expected or announced:
            self.context.marks.expected.discard(info.name)
            earlier = self.of_vm(info.uuid)
            record = self._record(info, "", self.context.host, "destination", "hooks", str(uuid.uuid4()))
            waiting = DestinationMigration(self.context, record, info)
            self.migrations[record.id] = waiting
            self._keep(self._claim(waiting, earlier))

    async def _claim(self, waiting: DestinationMigration, earlier: Migration | None) -> None:
        """Ask every peer whose VM this is. Nobody's: the migration goes on without us."""
        info = waiting.info
        try:
            if earlier is not None:
                await self._end_earlier(earlier)
            await self._closed(info.uuid)
            found = await self._source_of(waiting)
        except VmnetError as error:
            log.warning("VM %s: %s", info.name, error)
            found = None
        self.migrations.pop(waiting.record.id, None)
        if found is None:
            log.warning("no peer has VM %s: its migration goes on without vmnet", info.name)
            waiting.agreed.cancel()
            return
        name, agreed = found
        waiting.record = self._record(info, name, self.context.host, "destination", agreed.mode, agreed.id)
        waiting.agreed.set_result(agreed)
        self._begin(waiting)
        waiting.post(Event.AGREED)

    async def _end_earlier(self, one: Migration) -> None:
        log.warning("VM %s comes again while %s: the earlier one is ended", one.record.name, one.state.value)
        one.post(Event.CANCEL)
        await one.settled((), _CLAIM_S)

    async def _source_of(self, waiting: DestinationMigration) -> tuple[str, Agreement] | None:
        """The peer that has told us of the VM, if it agrees; else the only one that does. None if there is none, or are two."""
        told = self._told_by.pop(waiting.info.uuid, None)
        if told is not None:
            agreed = await self._ask_peers([told], waiting)
            if agreed:
                return agreed[0]
        agreed = await self._ask_peers([name for name in self.context.peers if name != told], waiting)
        if len(agreed) > 1:
            names = " and ".join(name for name, _agreement in agreed)
            log.error("VM %s comes from %s, as each says: it comes without vmnet", waiting.info.name, names)
        return agreed[0] if len(agreed) == 1 else None

    async def _ask_peers(
        self, peers: list[str], waiting: DestinationMigration
    ) -> list[tuple[str, Agreement]]:
        """Those that agree. When one has, the others are given a moment more: those that do not answer hold nobody up."""
        info = waiting.info
        question = {
            "vm": info.uuid,
            "tunnel_address": "",
            "segments": {one.mac: self.context.segment_of(one.bridge or "") for one in info.interfaces},
        }
        pending = {asyncio.ensure_future(self._ask_claim(name, question, waiting)) for name in peers}
        agreed: list[tuple[str, Agreement]] = []
        try:
            while pending:
                limit_s = _OTHERS_S if agreed else None
                done, pending = await asyncio.wait(
                    pending, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                agreed += [found for one in done if (found := one.result()) is not None]
            return agreed
        finally:
            for one in pending:
                one.cancel()

    async def _ask_claim(
        self, peer: str, question: dict[str, Any], waiting: DestinationMigration
    ) -> tuple[str, Agreement] | None:
        """A claim whose answer is late or gets lost is made again: else the source would divert to nobody."""
        config = self.context.config
        try:
            local = stretch.local_address(config.listen.tunnel_address, config.peers[peer].address)
            agreed = agreement(await self._ask_again(peer, {**question, "tunnel_address": local}, waiting))
            stretch.check_remote(peer, config.peers[peer], agreed.tunnel_address)
            return peer, agreed
        except NotFoundError:
            return None
        except VmnetError as error:
            log.warning("claim at %s: %s", peer, error)
            return None

    async def _ask_again(
        self, peer: str, claim: dict[str, Any], waiting: DestinationMigration
    ) -> dict[str, Any]:
        """The answer to a claim. VmnetError if the peer refuses it, or gives none until it is of no use any more."""
        deadline, first = time.monotonic() + _AGREE_S, True
        while True:
            try:
                return await self.context.peers[peer].request("claim", claim, _CLAIM_S)
            except (WaitTimeoutError, PeerError) as error:
                if waiting.runs or time.monotonic() > deadline:
                    raise
                if first:
                    log.warning("claim at %s: %s; asking again", peer, error)
                first = False
                await asyncio.sleep(_AGAIN_S)

    async def _tap_ready(self, info: domain_xml.DomainInfo) -> None:
        """The barrier: the hypervisor goes on when the port is ready, before it copies memory."""
        await make_taps_ready(info)
        migration = self._coming_to_us(info.uuid)
        if migration is None:
            return
        migration.taps = {one.mac: one.target_dev for one in info.interfaces if one.target_dev is not None}
        try:
            await asyncio.wait_for(asyncio.shield(migration.agreed), _BARRIER_S)
        except (TimeoutError, asyncio.CancelledError):
            return
        migration.post(Event.TAP_READY)
        try:
            await asyncio.wait_for(migration.let_go.wait(), _BARRIER_S)
        except TimeoutError:
            log.warning("VM %s comes before its port is ready", info.name)
        if migration.error is not None:
            log.warning("VM %s comes without vmnet: %s", info.name, migration.error)

    async def _router_may_run(self, vm: str) -> None:
        """A VM has been started, or has come without its data plane. One that is still on its way here does not run."""
        try:
            state = await self.context.domains.find(vm)
            if state.running and self.of_vm(vm) is None:
                await self.context.routers.vm_runs(domain_xml.parse(state.xml.encode()))
        except (VmnetError, OSError) as error:
            log.warning("VM %s has no data plane here: %s", vm, error)

    # -- peers -----------------------------------------------------------------------------------------------------------

    async def peer(self, peer: str, op: str, message: dict[str, Any]) -> dict[str, Any]:
        if op == "preflight":
            return await self._may_come(peer, preflight.Question.from_json(message))
        if op == "claim":
            return await self._claimed(peer, message)
        if op == "runs":
            return {"runs": await self._runs(uuid_field(message, "vm"))}
        migration = self.migrations.get(uuid_field(message, "id"))
        if migration is None:
            raise NotFoundError(f"{self.context.host} knows no migration {message['id']}")
        other = (
            migration.record.source
            if isinstance(migration, DestinationMigration)
            else migration.record.destination
        )
        if peer != other:
            raise PeerError(f"{peer} has no part in this migration")
        if isinstance(migration, DestinationMigration):
            return await peer_words.to_destination(migration, op, message)
        assert isinstance(migration, SourceMigration)
        return await peer_words.to_source(migration, op, message)

    async def _runs(self, vm: str) -> bool:
        try:
            await self.context.domains.find(vm)
        except NotFoundError:
            return False
        return True

    async def _may_come(self, peer: str, question: preflight.Question) -> dict[str, Any]:
        problems = await preflight.answer(self.context, peer, question)
        rebound = any(one in self.context.config.binding for one in question.bridges)
        if question.coming and not problems and len(self._told_by) < _MOST_TOLD:
            self._told_by[question.vm] = peer
        if question.coming and not problems and not rebound:  # our answers will say nothing new
            self.context.marks.expected.add(question.name)
        note = self.context.limits.note(self.context.host)
        return {"problems": problems, "notes": [note] if note else []}

    async def _claimed(self, peer: str, message: dict[str, Any]) -> dict[str, Any]:
        vm, address = uuid_field(message, "vm"), address_field(message, "tunnel_address")
        stretch.check_remote(peer, self.context.config.peers[peer], address)
        async with self._claiming.setdefault(
            vm, asyncio.Lock()
        ):  # a claim whose answer is late is made again
            migration = self.of_vm(vm) or await self._begun_by_libvirt(vm, peer)
        if not isinstance(migration, SourceMigration) or migration.record.destination != peer:
            raise NotFoundError(f"VM {vm} does not go from {self.context.host} to {peer}")
        raw = message.get("segments")
        segments = {str(mac): str(segment) for mac, segment in raw.items()} if isinstance(raw, dict) else {}
        if migration.claim is None:  # not asked again because our answer was late
            migration.claim = ClaimRequest(peer, address, segments)
            migration.post(Event.CLAIMED)
        agreed = await asyncio.wait_for(asyncio.shield(migration.attached), _BARRIER_S)
        return agreed.to_json()

    async def _begun_by_libvirt(self, vm: str, peer: str) -> SourceMigration:
        """Of a VM that leaves by `virsh migrate`. NotFoundError if it is not ours, PeerError if it does not leave."""
        state = await self.context.domains.find(vm)
        if not (await self.context.domains.progress(vm)).active:
            raise PeerError(f"libvirt on {self.context.host} is not migrating VM {state.name!r}")
        return await self._source(domain_xml.parse(state.xml.encode()), peer, "hooks", Options())

    # -- ending ----------------------------------------------------------------------------------------------------------

    def abort(self, name: str) -> MigrationRecord:
        """Put everything back. RefusedError if it is too late, NotFoundError if there is nothing to abort."""
        for one in self.migrations.values():
            if name in (one.record.name, one.record.vm, one.record.id) and isinstance(one, SourceMigration):
                if not can_roll_back(one.state):
                    raise RefusedError(
                        f"VM {one.record.name!r} runs at {one.record.destination} already", "migrate it back"
                    )
                one.abort_requested = True
                one.post(Event.CANCEL, RefusedError("aborted by the operator"))
                return one.record
        raise NotFoundError(f"no migration of {name!r} leaves this host", "see `vmnet status`")
