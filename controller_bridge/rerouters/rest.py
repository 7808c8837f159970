"""A fabric whose flows are given to a controller over REST: Ryu's ``ofctl_rest`` (docs/rerouters.md).

What has been done for a move is in the switches, with a cookie made from its id: a daemon that has been restarted reads it there.
The controller says "done" before the switch has; so everything is read back. A switch that does not answer Ryu within a second has no
entries, in Ryu's words (``ofctl_utils.send_stats_request``): that some are there is sure, that none are is not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from controller_bridge.rerouters import rest_entries
from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.rest_entries import Entry, Hosts, Turn
from controller_bridge.rerouters.settings import Settings
from controller_bridge.rerouters.web import fetch
from vmnet.errors import ConfigError, PeerError, RefusedError, UnavailableError, VmnetError, WaitTimeoutError

_POLL_S: Final = 0.005
_CALM_S: Final = 1.0
"""Switches count late (Open vSwitch: every 0.5 s at least): so long nothing may have been counted on the old way."""
_DRAIN_S: Final = 10.0
_DRAIN_POLL_S: Final = 0.2


@dataclass(frozen=True)
class RestRerouter:
    url: str
    hosts: Hosts
    priority: int
    table: int
    limit_s: float

    async def prepare(self, move: Move) -> None:
        ways = rest_entries.turns(move, self.hosts)
        there = await self._get("/stats/switches")
        if missing := sorted({one.datapath for one in ways}.difference(there)):
            raise UnavailableError(
                f"{self.url} has no switch {missing[0]}",
                f"it has {', '.join(map(str, sorted(there))) or 'none'}",
            )
        for one in ways:
            rest_entries.check_own(await self._entries(one.datapath), move, one, self.priority)
        try:
            await _each(ways, lambda one: self._added(one, self._prepared(move, one)))
        except VmnetError:
            await _each(ways, lambda one: self._without(one, move, self._prepared(move, one)))
            raise

    async def cut_over(self, move: Move) -> None:
        ways = rest_entries.turns(move, self.hosts)
        await _each(ways, lambda one: self._is_prepared(one, move))
        await _each(ways, lambda one: self._added(one, self._cut(move, one)))

    async def finish(self, move: Move) -> None:
        ways = rest_entries.turns(move, self.hosts)
        await self._drained(move, ways)
        await _each(ways, lambda one: self._finished(one, move))

    async def roll_back(self, move: Move) -> None:
        """First as prepared, then as before: no switch sends on the old way what another would still send back."""
        ways = rest_entries.turns(move, self.hosts)
        await _each(ways, lambda one: self._without(one, move, self._cut(move, one)))
        await _each(ways, lambda one: self._without(one, move, self._prepared(move, one)))

    async def close(self) -> None:
        """There is no connection that stays."""

    # -- one switch -----------------------------------------------------------------------------------------------------

    def _prepared(self, move: Move, turn: Turn) -> list[dict[str, Any]]:
        return rest_entries.prepared(move, turn, self.priority, self.table)

    def _cut(self, move: Move, turn: Turn) -> list[dict[str, Any]]:
        return rest_entries.cut(move, turn, self.priority, self.table)

    async def _is_prepared(self, turn: Turn, move: Move) -> None:
        async def complete() -> bool:
            entries = await self._entries(turn.datapath)
            return all(rest_entries.has(entries, body) for body in self._prepared(move, turn))

        if not await complete() and not await complete():
            raise RefusedError(
                f"the way of {move.vm} to {move.destination} has not been prepared on switch {turn.datapath}"
            )

    async def _added(self, turn: Turn, bodies: list[dict[str, Any]]) -> None:
        for body in bodies:
            await self._post("/stats/flowentry/add", body)

        async def there() -> bool:
            entries = await self._entries(turn.datapath)
            return all(rest_entries.has(entries, body) for body in bodies)

        await self._until(there, f"switch {turn.datapath} has not taken the entries")

    async def _without(self, turn: Turn, move: Move, bodies: list[dict[str, Any]]) -> None:
        for body in bodies:
            await self._post("/stats/flowentry/delete_strict", rest_entries.removed(body))

        async def gone() -> bool:
            entries = await self._entries(turn.datapath)
            return not any(rest_entries.has(entries, body) for body in bodies)

        await self._until(gone, f"switch {turn.datapath} still has entries of {move.vm}'s move")

    async def _finished(self, turn: Turn, move: Move) -> None:
        """Where the switch has no entries of its own for a MAC address, it gets one: else nobody would know where the VM is."""
        own = await self._own(turn, move)
        for one in own:
            if one.output == turn.old:
                await self._post(
                    "/stats/flowentry/modify_strict", rest_entries.redirected(one, turn, self.table)
                )

        async def turned() -> bool:
            return all(one.output != turn.old for one in await self._own(turn, move))

        await self._until(turned, f"switch {turn.datapath} has not turned its own entries for {move.vm}")
        strangers = [mac for mac in move.macs if not any(rest_entries.of_mac(one, [mac]) for one in own)]
        if strangers:
            kept = replace(move, macs=tuple(strangers))
            await self._added(turn, rest_entries.cut(kept, turn, self.priority - 1, self.table))
        await self._without(turn, move, self._prepared(move, turn) + self._cut(move, turn))

    async def _own(self, turn: Turn, move: Move) -> list[Entry]:
        """The switch's entries for the VM that are there without this move, or stay after it."""
        return [
            one
            for one in await self._entries(turn.datapath)
            if rest_entries.of_mac(one, move.macs)
            and not (one.cookie == rest_entries.cookie(move) and one.priority >= self.priority)
        ]

    async def _drained(self, move: Move, ways: list[Turn]) -> None:
        """Until nothing for the VM has come from the new way to be sent on the old one for a second; ten at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _DRAIN_S
        last, since = await self._counted(move, ways), loop.time()
        while last and loop.time() - since < _CALM_S and loop.time() < end:
            await asyncio.sleep(_DRAIN_POLL_S)
            if (now := await self._counted(move, ways)) != last:
                last, since = now, loop.time()

    async def _counted(self, move: Move, ways: list[Turn]) -> dict[int, int]:
        """On switches that still have the entries of what is under way."""
        found: dict[int, int] = {}
        for turn in ways:
            for one in await self._entries(turn.datapath):
                if one.cookie == rest_entries.cookie(move) and one.match.get("in_port") == turn.new:
                    found[turn.datapath] = found.get(turn.datapath, 0) + one.packets
        return found

    # -- the controller -------------------------------------------------------------------------------------------------

    async def _entries(self, datapath: int) -> list[Entry]:
        return rest_entries.entries_in(
            await self._post(f"/stats/flow/{datapath}", {"table_id": self.table}), datapath
        )

    async def _get(self, path: str) -> Any:
        return _json(await fetch(self.url + path, limit_s=self.limit_s), self.url)

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        said = await fetch(self.url + path, body, self.limit_s)
        return _json(said, self.url) if said else None

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(self.limit_s):
                while not await condition():
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise WaitTimeoutError(f"{what} within {self.limit_s:g} s") from None


async def _each(ways: list[Turn], step: Callable[[Turn], Awaitable[None]]) -> None:
    """All at once. What fails first is raised after all have ended: none goes on by itself."""
    for result in await asyncio.gather(*(step(one) for one in ways), return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _json(text: str, url: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise PeerError(f"{url} does not answer in JSON", "is it Ryu's ofctl_rest?") from None


def open_rest(settings: Mapping[str, Any]) -> RestRerouter:
    """ConfigError if the settings are wrong."""
    given = Settings(settings)
    made = RestRerouter(
        url=given.url("url"),
        hosts={
            name: _ways(given.texts(ways, f"hosts.{name}"), name)
            for name, ways in given.table("hosts").items()
        },
        priority=given.number("priority", 60000, 2, 0xFFFE),
        table=given.number("table", 0, 0, 0xFE),
        limit_s=given.seconds("limit_s", 10.0),
    )
    given.done()
    whole = set().union(*made.hosts.values())
    for host, ways in made.hosts.items():
        if missing := whole - ways.keys():
            raise ConfigError(
                f"host {host}: no port given for switch {min(missing)}",
                "say for each host by which port of every switch it is reached",
            )
    return made


def _ways(texts: Mapping[str, str], host: str) -> dict[int, int]:
    try:
        return {int(datapath, 0): int(port, 0) for datapath, port in texts.items()}
    except ValueError:
        raise ConfigError(f"[rerouter.settings] hosts.{host}: give datapath ids and port numbers") from None
