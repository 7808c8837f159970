"""A VM that leaves this host, and the fabric that is told of it (``[rerouter]``): before, at, and after the switchover.

The guest's announcement need not come back by the old path here, as it does where switches learn. So the source says itself when
that path is empty (:mod:`dom0.old_path`), once the fabric has confirmed the new one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from controller_bridge import last_words, setup_frame
from controller_bridge.last_words import Words
from controller_bridge.rerouters.base import Fences, Move, Rerouter, SetsUpFlows
from dom0 import bridges, fabric
from dom0.claim import mac_bytes
from dom0.dataplane import backlog
from dom0.dataplane.announce import end_marker
from dom0.dataplane.source_port import SourcePort
from dom0.migration import Migration
from dom0.old_path import OldPath
from dom0.router.leaving import Ask
from dom0.router.leaving_link import LeavingLink
from dom0.stand_ins import StandIns
from vmnet.actions import Action, Kind
from vmnet.errors import NotFoundError, RefusedError, VmnetError, WaitTimeoutError
from vmnet.machine import Event, State

Done = TypeVar("Done")

_WAIT_S: Final = 5.0
_LOOK_S: Final = 0.002
_BACK_S: Final = 0.2
_MARK_AGAIN_S: Final = 0.05
_AGAIN_S: Final = 0.2
_REHEARSALS: Final = 5
_REHEARSE_AGAIN_S: Final = 0.1
_LAST_WORDS: Final = 5
_SAY_AGAIN_S: Final = 0.04
_ON_THE_WAY: Final = frozenset({State.SWITCHOVER, State.STOPPED, State.ABORTING, State.RESUMED, State.LEFT})
"""The guest goes, or may still have gone."""
_GOES: Final = _ON_THE_WAY - {State.ABORTING}
_RUNS_HERE: Final = frozenset({State.STARTING, State.PRECOPY, State.SWITCHOVER})


class OldWay(Protocol):
    """A way to the guest's old place, that ends in a tunnel to the new one."""

    @property
    def bridge_port(self) -> str:
        """The device by which it begins."""

    def followed_count(self) -> int:
        """Frames that have come by it and gone into the tunnel."""

    def mark(self, frame: bytes) -> None:
        """Into the tunnel, behind everything that has come."""


class LeavingFabric:
    """``ports``, and a router's ``links``, whose LAN the fabric is, each with the interface's MAC.

    ``ask`` puts a question to the destination; ``released`` waits until what had waited here is in the tunnel; ``bridges``: by MAC.
    """

    def __init__(
        self,
        migration: Migration,
        rerouter: Rerouter,
        ports: Sequence[tuple[str, SourcePort]],
        links: Sequence[tuple[str, LeavingLink]],
        ask: Ask,
        released: Callable[[], Awaitable[None]],
        bridges: Mapping[str, str],
    ) -> None:
        record = migration.record
        self.marker = secrets.token_hex(16)
        """What the destination knows the end marker by."""
        self.expected = asyncio.Event()
        """The destination holds what arrives there directly."""
        self.rerouted = self.finished = False
        self._old_path_seen_empty = self._flows_known = True
        self._migration, self._rerouter, self._ask, self._released = migration, rerouter, ask, released
        self._ports = ports
        self.stand_ins = StandIns(migration, [(port, bridges.get(mac)) for mac, port in ports], before=True)
        self._ways: list[tuple[str, OldWay]] = [*ports, *links]
        self._move = Move(
            record.id,
            record.vm,
            record.source,
            record.destination,
            tuple(dict.fromkeys(mac for mac, _way in self._ways)),
        )
        self._written: Move | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._cutting: asyncio.Task[None] | None = None
        self._marking: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._rehearsing: asyncio.Task[None] | None = None

    @property
    def in_order(self) -> bool:
        """False: what came by the old path was not seen to have ended, or switches on the new one may have lacked flows."""
        return self._old_path_seen_empty and self._flows_known

    # -- before -------------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Does not wait for the fabric: :meth:`prepared` does."""
        await asyncio.to_thread(self._pin, True)
        # now: without us the hypervisor may go on to the end, and whoever comes after us has to know what to tell the fabric
        await self._write_down()
        self.prepare_again()
        self.stand_ins.join()

    def _pin(self, on: bool) -> None:
        """The guest's announcements from its new host come here as broadcasts, while late packets still come by the old way: a bridge
        that believed them would drop those."""
        for mac, way in self._ways:
            try:
                bridges.pin(way.bridge_port, mac, on)
            except OSError as error:  # the port has gone, with what was pinned to it
                self._migration.log.info("%s is not kept at %s: %s", mac, way.bridge_port, error)

    def prepare_again(self) -> None:
        """For what is known of the guest by now, if that is more."""
        known = {*self._move.addresses, *self._addresses()}
        if self._preparing is None or known != set(self._move.addresses):
            self._move = replace(self._move, addresses=tuple(sorted(known)))
            self._preparing = self._migration.spawn(self._prepare(self._preparing))
            self._preparing.add_done_callback(self._told)

    def _told(self, preparing: asyncio.Task[None]) -> None:
        error = None if preparing.cancelled() else preparing.exception()
        if error is not None:
            self._migration.log.warning("the fabric makes no new path: %s", error)

    def _addresses(self) -> list[str]:
        """What the guest has been seen to use."""
        return sorted({str(one) for _mac, port in self._ports for one in port.addresses.found})

    async def _prepare(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        await self._write_down()
        await self._timed("prepare", self._rerouter.prepare(self._move))

    async def _write_down(self) -> None:
        if self._written != self._move:
            self._written = self._move
            await self._migration.journal([Action(Kind.REROUTE, self._move.id, fabric.encode(self._move))])

    async def prepared(self) -> None:
        """The new path is there. VmnetError: the fabric cannot make it."""
        assert self._preparing is not None
        await asyncio.shield(self._preparing)

    def rehearse(self) -> None:
        """Whether what the source says in the guest's name comes to the destination. Again: nothing.

        Only in a fabric that has fences: of others nobody knows whether they bring it after the cut-over as well. Not of a router,
        whose links send.
        """
        if (
            self._rehearsing is None
            and isinstance(self._rerouter, Fences)
            and len(self._ways) == len(self._ports)
        ):
            self._rehearsing = self._migration.spawn(self._rehearse())

    async def _rehearse(self) -> None:
        """The destination may not listen yet, and a frame may be lost."""
        for _ in range(_REHEARSALS):
            if self._migration.state in _RUNS_HERE:
                self._say(Words.REHEARSAL)
            await asyncio.sleep(_REHEARSE_AGAIN_S)

    def say_last(self) -> None:
        """The guest has stopped. Nothing where it was not rehearsed: switches that learn would take it to be here again."""
        if self._rehearsing is not None:
            self._say(Words.LAST)
            self._migration.spawn(self._say_last_again())

    async def _say_last_again(self) -> None:
        """A frame may be lost."""
        for _ in range(1, _LAST_WORDS):
            await asyncio.sleep(_SAY_AGAIN_S)
            if self._migration.state in _GOES:
                self._say(Words.LAST)

    def _say(self, words: Words) -> None:
        """In the guest's name, behind all that it has sent."""
        for mac, port in self._ports:
            try:
                port.say(last_words.frame(mac_bytes(mac), bytes.fromhex(self.marker), words))
            except OSError as error:  # its tap has gone
                self._migration.log.info("nothing is said in the name of %s: %s", mac, error)

    # -- the switchover -----------------------------------------------------------------------------------------------

    async def cut_over(self) -> None:
        """Does not wait for the fabric: the guest is being stopped meanwhile. Again: nothing, but after :meth:`turn_back`."""
        if self._returning is not None:
            await asyncio.wait({self._returning})
            self._returning = self._cutting = None
            for _mac, port in self._ports:
                await asyncio.to_thread(port.follow)
        if self._cutting is None:
            self._cutting = self._migration.spawn(self._cut_over())

    async def _cut_over(self) -> None:
        migration = self._migration
        while not self.rerouted:
            try:
                await self._cut()
            except VmnetError as error:
                migration.log.warning("the fabric: %s", error)
                if migration.record.mode == "managed":
                    migration.post(Event.FAILED, error)
                    return
                # the guest goes whatever we say: the tunnel carries until the fabric does
                await asyncio.sleep(_AGAIN_S)
            if migration.state not in _ON_THE_WAY:
                return
        self._marking = migration.spawn(self._mark())

    async def _cut(self) -> None:
        await _within(self.expected.wait(), "the destination did not get ready to hold what comes directly")
        if self._preparing is not None:
            await asyncio.wait({self._preparing})
        self._move = replace(self._move, addresses=tuple({*self._move.addresses, *self._addresses()}))
        await self._timed("cut-over", self._cut_fabric_over(self._rerouter))
        self.rerouted = True

    async def _cut_fabric_over(self, rerouter: Rerouter) -> None:
        if not isinstance(rerouter, SetsUpFlows):
            await rerouter.cut_over(self._move)
            return
        headers = [header for _mac, port in self._ports for header in port.senders.headers]
        known = await rerouter.set_up_and_cut_over(self._move, headers[: setup_frame.MOST])
        if not known or len(headers) > setup_frame.MOST:
            self._flows_known = False
            self._migration.notes.append(
                "switches on the new path may have had no flows: the first packets by it may have been overtaken"
            )

    def _old_path(self) -> OldPath:
        tunnels = [port.tunnel for _mac, port in self._ports]
        ask = self._fence if isinstance(self._rerouter, Fences) and tunnels else None
        return OldPath(self._count, tunnels, ask)

    async def _empty(self, old_path: OldPath) -> bool:
        """Until nothing comes by the old way: what switches have cached may lead there for some milliseconds more."""
        await _within(self._released(), "what had waited here was not sent on")
        seen = await old_path.until_empty()
        # nothing is overtaken in this kernel
        return await asyncio.to_thread(backlog.wait_until_passed, self._count) and seen

    async def _fence(self, token: bytes) -> int:
        """For ports alone: a router's VM has its links' MAC addresses too, and is not to get what it has not asked for."""
        assert isinstance(self._rerouter, Fences)
        move = replace(self._move, macs=tuple(dict.fromkeys(mac for mac, _port in self._ports)))
        return await self._timed("fence", self._rerouter.fence(move, token))

    def _count(self) -> int:
        return sum(way.followed_count() for _mac, way in self._ways)

    async def _mark(self) -> None:
        """Again and again: a tunnel may lose a packet."""
        old_path = self._old_path()
        try:
            self._old_path_seen_empty = await self._empty(old_path)
            if not self._old_path_seen_empty:
                self._migration.notes.append(
                    f"the old path to {self._move.source} was not seen empty: what came by it may have been overtaken"
                )
            self._migration.tell("old-path-empty", seen=self._old_path_seen_empty)
            while self._migration.state in _ON_THE_WAY:
                for mac, way in self._ways:
                    way.mark(end_marker(mac_bytes(mac), bytes.fromhex(self.marker)))
                await asyncio.sleep(_MARK_AGAIN_S)
        finally:
            await old_path.close()

    # -- after --------------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """VmnetError: it is not certain that all packets go to the destination."""
        try:
            if not self.rerouted:
                await self._timed("cut-over", self._rerouter.cut_over(self._move))
                self.rerouted = True
            await self._timed("finish", self._rerouter.finish(self._move))
        except VmnetError as error:
            self._migration.notes.append(
                f"the fabric may not send all packets to {self._move.destination}: {error}"
            )
            raise
        self.finished = True

    def turn_back(self) -> None:
        """The guest stays, or so it is meant: the fabric is told at once, while the destination can still hold what goes there."""
        if self._cutting is not None and self._returning is None:
            for _mac, port in self._ports:
                port.hold()
            self._returning = self._migration.spawn(self._reroute_back())

    async def roll_back(self, gone: bool) -> None:
        """As it was. ``gone``: no guest is here to get anything back. VmnetError: packets may still go to the destination."""
        if self._preparing is None:
            return
        if self._returning is None:
            self._returning = self._migration.spawn(self._reroute_back())
        if self._cutting is None or gone:
            await self._returning
        else:
            for _mac, port in self._ports:
                await asyncio.to_thread(port.take_back)
            try:
                await self._returning
            finally:
                await self._get_back()
        await asyncio.to_thread(self._pin, False)

    async def _get_back(self) -> None:
        """What went to the destination meanwhile: it is before what comes here from now on."""
        try:
            sent = (await self._ask("back"))["frames"]
        except NotFoundError:  # it has nothing of ours any more
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _BACK_S
        for mac, port in self._ports:
            while port.given_back() < sent.get(mac, 0) and loop.time() < deadline:
                await asyncio.sleep(_LOOK_S)

    async def _reroute_back(self) -> None:
        if self._cutting is not None and not self.expected.is_set():
            self._cutting.cancel()
        for task in (self._preparing, self._cutting):
            if task is not None:
                await asyncio.wait({task})
        if self._marking is not None:
            self._marking.cancel()
        await self._timed("roll-back", self._rerouter.roll_back(self._move))
        self.rerouted = False

    async def _timed(self, step: str, work: Awaitable[Done]) -> Done:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            done = await work
        except OSError as error:
            raise RefusedError(f"the fabric, {step}: {error}") from error
        self._migration.tell("fabric", step=step, took_ms=round((loop.time() - began) * 1000, 3))
        return done


async def _within(event: Awaitable[object], late: str) -> None:
    try:
        await asyncio.wait_for(event, _WAIT_S)
    except TimeoutError:
        raise WaitTimeoutError(f"{late} within {_WAIT_S:g} s") from None
