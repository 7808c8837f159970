"""All ways to one destination lead somewhere else: from wherever they come, packets for it find the old place or the new one. Pure.

Entries that go by destination alone form a tree towards it. When it moves, the switch it moves to is changed first, then those next
to it on the new tree, and so on outward: whatever meets a changed switch meets only changed ones from there on, and what meets none
goes to the old place, where it is sent on or held. So there is no instant at which a packet goes in a circle or has no way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller_bridge.openflow import action
from controller_bridge.openflow.flow import SAME_OWNER, Change, Command, Flow
from controller_bridge.openflow.match import Field
from controller_bridge.paths import Plan
from controller_bridge.topology import Place, Topology
from vmnet.errors import NotFoundError, RefusedError


def towards(topology: Topology, end: Place) -> dict[str, tuple[int, int]]:
    """Of each switch that can reach ``end``: how many links it is away, and the port of the shortest way there."""
    distances = topology.distances(end.switch)
    found = {end.switch: (0, end.port)}
    for place, other in sorted(topology.beyond.items()):
        here, there = distances.get(place.switch), distances.get(other.switch)
        if here is not None and there is not None and here == there + 1:
            found.setdefault(place.switch, (here, place.port))
    return found


def plan(entries: Mapping[str, Sequence[Flow]], topology: Topology, end: Place) -> Plan:
    """``entries``: by switch, those of the destination, as they are. Each leads to ``end`` afterwards; what does so already stays.

    RefusedError if an entry goes by more than the destination; NotFoundError if a switch that has one cannot reach ``end``.
    """
    tree = towards(topology, end)
    made = Plan()
    for switch in sorted(_concerned(entries, topology, tree, end), key=lambda name: tree[name][0]):
        distance, port = tree[switch]
        changes, undo = _changes(switch, entries, port)
        while len(made.cuts) <= distance:
            made.cuts.append({})
            made.undo_cuts.append({})
        if changes:
            made.cuts[distance][switch] = changes
            made.undo_cuts[distance][switch] = undo
    made.cuts = [one for one in made.cuts if one]
    made.undo_cuts = [one for one in reversed(made.undo_cuts) if one]
    return made


def _concerned(
    entries: Mapping[str, Sequence[Flow]], topology: Topology, tree: Mapping[str, tuple[int, int]], end: Place
) -> set[str]:
    """Switches that have entries, and those on their way to ``end``."""
    found: set[str] = set()
    for switch, some in entries.items():
        if not some:
            continue
        if any(one.match.get(Field.IN_PORT) is not None for one in some):
            raise RefusedError(
                f"an entry of {switch} goes by the port that packets come in at",
                "move it by its path: `vmnet flows migrate`",
            )
        if switch not in tree:
            raise NotFoundError(f"no path from {switch} to {end.switch}")
        while switch not in found:
            found.add(switch)
            if switch != end.switch:
                switch = topology.beyond[Place(switch, tree[switch][1])].switch
    return found


def _changes(
    switch: str, entries: Mapping[str, Sequence[Flow]], port: int
) -> tuple[list[Change], list[Change]]:
    """And what undoes them."""
    own = entries.get(switch, ())
    if not own:
        model = next(some for _name, some in sorted(entries.items()) if some)
        added = [one._replace(instructions=action.apply([action.output(port)])) for one in model]
        return (
            [Change(Command.ADD, one) for one in added],
            [Change(Command.DELETE_STRICT, one, SAME_OWNER) for one in added],
        )
    changes, undo = [], []
    for one in own:
        ports = action.outputs(one.instructions)
        if len(ports) != 1:
            raise RefusedError(f"an entry of {switch} sends to {len(ports)} ports")
        if ports[0] != port:
            moved = one._replace(instructions=action.redirected(one.instructions, ports[0], port))
            changes.append(Change(Command.MODIFY_STRICT, moved, SAME_OWNER))
            undo.append(Change(Command.MODIFY_STRICT, one, SAME_OWNER))
    return changes, undo
