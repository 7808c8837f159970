"""Flows moved by hand, no VM involved: the paper's own experiment (Pisa 2010, section 3), and a node emptied for its maintenance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller_bridge import trace
from controller_bridge.connected import Connected
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Field, Match
from controller_bridge.paths import Path, plan, together
from controller_bridge.reroute import Reroute
from controller_bridge.topology import Place
from controller_bridge.trace import Walk
from vmnet.errors import NotFoundError, RefusedError


@dataclass(frozen=True)
class Group:
    """Flows that take one path, and the path they are to take. ``entries``: as they are on each switch of ``old``."""

    old: Path
    new: Path
    entries: Mapping[str, Sequence[Flow]]

    @property
    def flows(self) -> int:
        return len(self.entries[self.old[0].switch])


@dataclass(frozen=True)
class Times:
    """Seconds from the first message on: until the new paths are there, until the forks have answered, until they have been read
    back, and until the old paths are gone (which waits until they have been empty for a second)."""

    prepared_s: float
    cut_s: float
    confirmed_s: float
    gone_s: float


def edges(connected: Connected) -> list[Place]:
    """Ports that lead out of the fabric."""
    topology = connected.topology
    every = [Place(switch, number) for switch, ports in connected.ports.items() for number in ports.values()]
    return sorted(place for place in every if place not in topology.beyond and place.port < action.PORT_MAX)


def walks(
    tables: Mapping[str, Sequence[Flow]], connected: Connected, start: Place, wanted: Match
) -> list[Walk]:
    """One for each entry of the switch at ``start`` that packets from there may meet, and that has the fields of ``wanted``."""
    found = []
    port = start.port.to_bytes(4, "big")
    for one in tables[start.switch]:
        if one.table == 0 and one.match.get(Field.IN_PORT) in (None, port) and one.match.covers(wanted):
            walk = trace.walk(tables, connected.topology, start, trace.packet_of(one))
            if walk.entries and walk.entries[0] == one:
                found.append(walk)
    return found


def groups(
    tables: Mapping[str, Sequence[Flow]],
    connected: Connected,
    starts: Iterable[Place],
    wanted: Match,
    via: Sequence[str],
    avoid: frozenset[str],
) -> list[Group]:
    """Who has to move. NotFoundError if one of them has no other path; RefusedError if flows of another path share an entry."""
    by_path: dict[Path, list[Walk]] = {}
    for start in starts:
        for one in walks(tables, connected, start, wanted):
            if one.end is not None and (via or avoid & {hop.switch for hop in one.path}):
                by_path.setdefault(one.path, []).append(one)
    found = []
    for old, some in by_path.items():
        start, end = Place(old[0].switch, old[0].in_port), Place(old[-1].switch, old[-1].out_port)
        new = connected.topology.shortest(start, end, via, avoid)
        if new != old:
            entries = {hop.switch: _distinct(walk.entries[at] for walk in some) for at, hop in enumerate(old)}
            found.append(Group(old, new, entries))
    _refuse_shared(
        found, [one for edge in edges(connected) for one in walks(tables, connected, edge, Match())]
    )
    return found


def _refuse_shared(found: Sequence[Group], every: Sequence[Walk]) -> None:
    """An entry that changes or goes must not carry flows of another path: they would be led astray."""
    for group in found:
        changes = {hop.switch for hop in set(group.old) - set(group.new)}
        for walk in every:
            for hop, entry in zip(walk.path, walk.entries, strict=True):
                if walk.path != group.old and hop.switch in changes and entry in group.entries[hop.switch]:
                    raise RefusedError(
                        f"an entry of {hop.switch} also carries flows from port {walk.path[0].in_port} of {walk.path[0].switch}",
                        "flows can be moved by hand where each has its own entries; nothing has been changed",
                    )


def _distinct(entries: Iterable[Flow]) -> list[Flow]:
    return list(dict.fromkeys(entries))


async def move(
    connected: Connected, moving: Iterable[Group], clock: Callable[[], float] = time.perf_counter
) -> Times:
    """All of them at once; all put back if a step fails before the old paths go. RefusedError or UnavailableError."""
    reroute = Reroute(
        connected.switches, together(plan(group.entries, group.old, group.new) for group in moving)
    )
    began = clock()
    await reroute.prepare()
    prepared = clock()
    try:
        await reroute.cut_over()
        cut = clock()
        await reroute.confirm_cut()
    except BaseException:
        await asyncio.shield(reroute.roll_back())
        raise
    confirmed = clock()
    await reroute.finish()
    return Times(prepared - began, cut - began, confirmed - began, clock() - began)


def one_walk(
    tables: Mapping[str, Sequence[Flow]], connected: Connected, start: Place, wanted: Match
) -> list[Walk]:
    """Where packets with the fields of ``wanted`` go from ``start``. NotFoundError if nothing there has such an entry."""
    packet = {field: value for field, (value, _mask) in wanted.fields().items()}
    if packet:
        return [trace.walk(tables, connected.topology, start, packet)]
    found = walks(tables, connected, start, wanted)
    if not found:
        raise NotFoundError(f"{start.switch} has no entry for what comes in at {connected.name(start)}")
    return found
