"""All ways to one destination lead somewhere else: from wherever they come, packets for it find the old place or the new one. Pure.

Entries that go by destination alone form a tree towards it. When it moves, the switch it moves to is changed first, then those next
to it on the new tree, and so on outward: whatever meets a changed switch meets only changed ones from there on, and what meets none
goes to the old place, where it is sent on or held. So there is no instant at which a packet goes in a circle or has no way.

So much for tables. A switch's datapath may follow its table some ms late (Open vSwitch: 2 usually, 175 once), and send on a packet
the old way when others go the new one already. Where the way between two switches is turned round, it would be sent back by the
port it came in at, and dropped; elsewhere it could come to the new place by a longer way, and be overtaken. So before anything is cut
there are *guards*, a priority higher: what comes from a neighbour that only the old tree leads here from is on the old way and stays
on it, and what comes from one that only the new tree leads here from is on the new one. Guards go with :attr:`Plan.finish`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from controller_bridge.openflow import action
from controller_bridge.openflow.flow import SAME_OWNER, Change, Command, Flow, by_place
from controller_bridge.openflow.match import Field
from controller_bridge.paths import Plan
from controller_bridge.topology import Place, Topology
from vmnet.errors import NotFoundError, RefusedError

Ways = Mapping[str, int]
"""To a destination: by switch, the port that leads on."""


def towards(topology: Topology, end: Place) -> dict[str, tuple[int, int]]:
    """Of each switch that can reach ``end``: how many links it is away, and the port of the shortest way there."""
    distances = topology.distances(end.switch)
    found = {end.switch: (0, end.port)}
    # of ways as short as each other all switches choose by their neighbours' names: then nothing but a turned way can lead back
    for place, other in sorted(topology.beyond.items(), key=lambda ends: (ends[1].switch, ends[0])):
        here, there = distances.get(place.switch), distances.get(other.switch)
        if here is not None and there is not None and here == there + 1:
            found.setdefault(place.switch, (here, place.port))
    return found


def ways(tree: Mapping[str, tuple[int, int]]) -> Ways:
    """Of what :func:`towards` has found."""
    return {switch: port for switch, (_distance, port) in tree.items()}


def plan(entries: Mapping[str, Sequence[Flow]], topology: Topology, end: Place) -> Plan:
    """``entries``: by switch, those of the destination, as they are. Each leads to ``end`` afterwards; what does so already stays.

    RefusedError if an entry goes by more than the destination; NotFoundError if a switch that has one cannot reach ``end``.
    """
    tree = towards(topology, end)
    made = Plan()
    there = {switch: guards(some) for switch, some in entries.items()}
    entries = {switch: [one for one in some if one not in there[switch]] for switch, some in entries.items()}
    for switch in sorted(_concerned(entries, topology, tree, end), key=lambda name: tree[name][0]):
        distance, port = tree[switch]
        changes, undo = _changes(switch, entries, port)
        while len(made.cuts) <= distance:
            made.cuts.append({})
            made.undo_cuts.append({})
        if changes:
            made.cuts[distance][switch] = changes
            made.undo_cuts[distance][switch] = undo
    _guard(made, there, _guards(entries, topology, tree))
    made.cuts = [one for one in made.cuts if one]
    made.undo_cuts = [one for one in reversed(made.undo_cuts) if one]
    return made


def guards(entries: Sequence[Flow]) -> list[Flow]:
    """Those of a switch's entries that are guards: like another, for one port, and a priority higher."""
    plain = {(one.priority, one.match, one.cookie) for one in entries}
    found = []
    for one in entries:
        port = one.match.get(Field.IN_PORT)
        if port is not None and (one.priority - 1, one.match.without_port(), one.cookie) in plain:
            found.append(one)
    return found


def parted(topology: Topology, one: Ways, other: Ways) -> Iterator[tuple[Place, int]]:
    """Where two ways part, ports by which comes what is on the one alone, or on the other: and the port by which it stays on that."""
    for here, neighbour in topology.beyond.items():
        on, on_other = one.get(here.switch), other.get(here.switch)
        if on is None or on_other is None or on == on_other:
            continue
        by_one, by_other = (some.get(neighbour.switch) == neighbour.port for some in (one, other))
        if by_one != by_other:
            yield here, on if by_one else on_other


def _guards(
    entries: Mapping[str, Sequence[Flow]], topology: Topology, tree: Mapping[str, tuple[int, int]]
) -> dict[str, list[Flow]]:
    """By switch: for entries that change."""
    found: dict[str, list[Flow]] = {switch: [] for switch in entries}
    tables = {switch: by_place(some) for switch, some in entries.items()}
    for key in dict.fromkeys(one.place for some in entries.values() for one in some):
        there = {switch: table[key] for switch, table in tables.items() if key in table}
        outputs = {switch: action.outputs(one.instructions) for switch, one in there.items()}
        before = {switch: some[0] for switch, some in outputs.items() if len(some) == 1}
        for here, port in parted(topology, ways(tree), before):
            one = there[here.switch]
            does = action.redirected(one.instructions, before[here.switch], port)
            found[here.switch].append(_guarding(one, here.port)._replace(instructions=does))
    return found


def _guarding(one: Flow, port: int) -> Flow:
    return one._replace(priority=one.priority + 1, match=one.match.at_port(port))


def _guard(made: Plan, there: Mapping[str, Sequence[Flow]], needed: Mapping[str, Sequence[Flow]]) -> None:
    """Those of earlier moves that are not needed go."""
    for switch in there.keys() | needed.keys():
        old, new = by_place(there.get(switch, ())), by_place(needed.get(switch, ()))
        added = [Change(Command.ADD, one) for one in new.values() if old.get(one.place) != one]
        gone = [
            Change(Command.DELETE_STRICT, one, SAME_OWNER) for one in old.values() if one.place not in new
        ]
        leaving = [Change(Command.DELETE_STRICT, one, SAME_OWNER) for one in new.values()]
        for plan_part, changes in (
            (made.prepare, [*gone, *added]),
            (made.undo_prepare, leaving),
            (made.finish, leaving),
        ):
            if changes:
                plan_part[switch] = changes


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
