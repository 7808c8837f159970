"""Moves flows from one path to another on real switches: the plan's steps, each confirmed.

Confirmed means: the switch has answered the bundle's commit, and the entries are there when they are read back. That is what its
tables say; the datapath of an Open vSwitch follows some milliseconds later, which costs nothing here: until then packets take the
old path, which is there until it has been empty for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Change, Command, Flow, FlowStats, by_place
from controller_bridge.openflow.match import Field, Match
from controller_bridge.paths import Path, Plan, plan
from controller_bridge.switch import Switch
from vmnet.errors import RefusedError, VmnetError

_POLL_S: Final = 0.2
_CALM_S: Final = 1.0
"""Switches count late (Open vSwitch: every 0.5 s at least): so long nothing may have been counted on the old path."""
_DRAIN_S: Final = 10.0
log = logging.getLogger(__name__)


class Reroute:
    """Steps in order: :meth:`prepare`, :meth:`cut_over`, :meth:`finish`; before ``finish``, :meth:`roll_back` undoes all of it."""

    def __init__(self, switches: Mapping[str, Switch], made: Plan) -> None:
        self.plan = made
        self.switches = switches

    @classmethod
    async def between(
        cls,
        switches: Mapping[str, Switch],
        old: Path,
        new: Path,
        wanted: Match,
        cookie: int = 0,
        mask: int = 0,
    ) -> Reroute:
        """Of all flows on ``old`` whose match has the fields of ``wanted`` and whose cookie fits. RefusedError if it cannot be."""
        unknown = {hop.switch for hop in (*old, *new)} - switches.keys()
        if unknown:
            raise RefusedError(f"no connection to {', '.join(sorted(unknown))}")
        read = await asyncio.gather(*(switches[hop.switch].flows(cookie, mask) for hop in old))
        entries: dict[str, list[Flow]] = {}
        for hop, found in zip(old, read, strict=True):
            entries[hop.switch] = [
                one.flow
                for one in found
                if _goes(one.flow, hop.in_port, hop.out_port) and one.flow.match.covers(wanted)
            ]
        return cls(switches, plan(entries, old, new))

    async def prepare(self) -> None:
        """The new path is there, on all switches but the forks. Nothing takes it yet. RefusedError: nothing of it is there."""
        try:
            await self.install()
            await self.confirm_prepared()
        except VmnetError:
            await self._try(self.plan.undo_prepare)
            raise

    async def install(self) -> None:
        """The first half of :meth:`prepare`: told, and answered, but not read back."""
        await self._everywhere(self.plan.prepare)

    async def confirm_prepared(self) -> None:
        """The other half. RefusedError if a switch's tables do not say so."""
        await self._confirm_all(self.plan.prepare.items())

    async def cut_over(self) -> None:
        """All packets that come from now on take the new path."""
        for changes in self.plan.cuts:
            await self._everywhere(changes)

    async def confirm_cut(self) -> None:
        """The forks' tables say so. RefusedError if not."""
        await self._confirm_all(one for changes in self.plan.cuts for one in changes.items())

    async def finish(self, drain: bool = True) -> None:
        """The old path goes, once it is empty; at once if nothing can be on it (not ``drain``)."""
        if drain:
            await self._drained(self.plan.leaving)
        await self._everywhere(self.plan.finish)

    async def roll_back(self) -> None:
        """As it was. Every switch that is there is put back; those that are not are named in the error."""
        failed: list[str] = []
        for changes in self.plan.undo_cuts:
            failed += await self._try(changes)
        if not failed:
            added = {switch: [one.flow for one in some] for switch, some in self.plan.prepare.items()}
            await self._drained(added)
            failed = await self._try(self.plan.undo_prepare)
        if failed:
            raise RefusedError(f"not put back on {', '.join(failed)}", "look at `vmnet flows show`")

    async def _everywhere(self, changes: Mapping[str, Sequence[Change]]) -> None:
        await asyncio.gather(*(self.switches[switch].commit(some) for switch, some in changes.items()))

    async def _try(self, changes: Mapping[str, Sequence[Change]]) -> list[str]:
        """The switches on which it could not be."""
        results = await asyncio.gather(
            *(self.switches[switch].commit(some) for switch, some in changes.items()), return_exceptions=True
        )
        failed = []
        for switch, result in zip(changes, results, strict=True):
            if isinstance(result, BaseException):
                log.warning("%s: %s", switch, result)
                failed.append(switch)
        return failed

    async def _confirm_all(self, changes: Iterable[tuple[str, Sequence[Change]]]) -> None:
        await asyncio.gather(*(self._confirm(switch, some) for switch, some in changes))

    async def _confirm(self, switch: str, changes: Sequence[Change]) -> None:
        there = by_place(one.flow for one in await self._read(switch, changes))
        for _command, wanted, _mask in changes:
            found = there.get(wanted.place)
            if found is None or found.instructions != wanted.instructions:
                raise RefusedError(
                    f"{switch} has accepted {len(changes)} entries, but does not have them all"
                )

    async def _read(self, switch: str, changes: Sequence[Change]) -> list[FlowStats]:
        """No more of its tables than can be told by one cookie."""
        cookies = {one.flow.cookie for one in changes}
        if len(cookies) == 1:
            return await self.switches[switch].flows(cookies.pop(), 0xFFFFFFFFFFFFFFFF)
        return await self.switches[switch].flows()

    async def _drained(self, leaving: Mapping[str, Sequence[Flow]]) -> None:
        """Until nothing has been counted for a second. After ten, it is not this path's own traffic any more."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _DRAIN_S
        last, since = await self._counted(leaving), loop.time()
        while loop.time() - since < _CALM_S and loop.time() < end:
            await asyncio.sleep(_POLL_S)
            now = await self._counted(leaving)
            if now != last:
                last, since = now, loop.time()

    async def _counted(self, leaving: Mapping[str, Sequence[Flow]]) -> dict[str, int]:
        counted = {}
        for switch, flows in leaving.items():
            places = {one.place for one in flows}
            read = await self._read(switch, [Change(Command.ADD, one) for one in flows])
            counted[switch] = sum(one.packets for one in read if one.flow.place in places)
        return counted


def _goes(one: Flow, in_port: int, out_port: int) -> bool:
    own = one.match.get(Field.IN_PORT)
    return (own is None or int.from_bytes(own, "big") == in_port) and out_port in action.outputs(
        one.instructions
    )
