"""A destination moves: on model networks of any shape, with changes in any order that the plan allows, no packet is ever astray."""

from __future__ import annotations

import random as randoms
from itertools import takewhile

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge import trace, trees
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Change, Command, Flow
from controller_bridge.openflow.match import Field, Match
from controller_bridge.paths import Changes
from controller_bridge.topology import Place, Topology
from vmnet.errors import NotFoundError, RefusedError

MAC = bytes.fromhex("525400000001")
PACKET = {Field.ETH_DST: MAC}
Tables = dict[str, dict[tuple[int, int, bytes], Flow]]


def entry(port: int, **fields: int) -> Flow:
    return Flow(100, Match.of(eth_dst=MAC, **fields), action.apply([action.output(port)]), cookie=8)


def network(count: int, random: randoms.Random) -> Topology:
    """A connected one; the n-th link has ports 2n and 2n+1."""
    edges = [(number, random.randrange(number)) for number in range(1, count)]
    edges += [
        (a, b) for a, b in (random.sample(range(count), 2) for _ in range(random.randrange(count))) if a != b
    ]
    links = [(Place(f"s{a}", 2 * n), Place(f"s{b}", 2 * n + 1)) for n, (a, b) in enumerate(edges, 1)]
    return Topology([f"s{number}" for number in range(count)], links)


def any_tree(topology: Topology, root: Place, random: randoms.Random) -> dict[str, int]:
    """A way to ``root`` from everywhere, not a shortest one."""
    ports, reached = {root.switch: root.port}, {root.switch}
    while border := [
        one for one, other in topology.beyond.items() if one.switch not in reached and other.switch in reached
    ]:
        place = random.choice(sorted(border))
        ports[place.switch] = place.port
        reached.add(place.switch)
    return ports


def apply(tables: Tables, switch: str, change: Change) -> None:
    table = tables.setdefault(switch, {})
    assert (change.command is Command.ADD) is (change.flow.place not in table)
    if change.command is Command.DELETE_STRICT:
        del table[change.flow.place]
    else:
        table[change.flow.place] = change.flow


def ends(tables: Tables, topology: Topology) -> dict[str, Place | None]:
    """Where packets end that are at a switch which has an entry."""
    listed = {switch: list(table.values()) for switch, table in tables.items() if table}
    return {switch: trace.walk(listed, topology, Place(switch, 9999), PACKET).end for switch in listed}


def in_any_order(changes: Changes, random: randoms.Random) -> list[tuple[str, Change]]:
    found = [(switch, one) for switch, some in changes.items() for one in some]
    random.shuffle(found)
    return found


@given(st.integers(2, 9), st.integers(0, 1 << 32), st.floats(0, 1), st.booleans())
def test_no_packet_is_astray_at_any_instant(count: int, seed: int, known: float, undone: bool) -> None:
    random = randoms.Random(seed)
    topology = network(count, random)
    old, new = (Place(f"s{random.randrange(count)}", port) for port in (1001, 1002))
    ways = any_tree(topology, old, random)
    tables: Tables = {}
    for switch in ways:
        # only some have an entry, but then all on their way do
        place = Place(switch, 0)
        if random.random() < known or switch == old.switch:
            while place.switch not in tables:
                tables[place.switch] = {entry(0).place: entry(ways[place.switch])}
                if place.switch != old.switch:
                    place = topology.beyond[Place(place.switch, ways[place.switch])]
    before = {switch: dict(table) for switch, table in tables.items()}
    made = trees.plan({switch: list(table.values()) for switch, table in tables.items()}, topology, new)
    for switch, change in in_any_order(made.prepare, random):
        apply(tables, switch, change)
        assert set(ends(tables, topology).values()) == {old}
    for changes in made.cuts:
        for switch, change in in_any_order(changes, random):
            apply(tables, switch, change)
            assert set(ends(tables, topology).values()) <= {old, new}
    assert set(ends(tables, topology).values()) == {new}
    distances = topology.distances(new.switch)
    for switch, table in tables.items():
        walk = trace.walk(
            {name: list(some.values()) for name, some in tables.items()},
            topology,
            Place(switch, 9999),
            PACKET,
        )
        assert table and len(walk.path) == distances[switch] + 1
    if undone:
        for changes in made.undo_cuts:
            for switch, change in in_any_order(changes, random):
                apply(tables, switch, change)
                assert set(ends(tables, topology).values()) <= {old, new}
        for switch, change in in_any_order(made.undo_prepare, random):
            apply(tables, switch, change)
        assert {switch: table for switch, table in tables.items() if table} == before
        return
    for switch, change in in_any_order(made.finish, random):
        apply(tables, switch, change)
        assert set(ends(tables, topology).values()) == {new}
    assert all(len(table) == 1 for table in tables.values())


@given(st.integers(2, 9), st.integers(0, 1 << 32))
def test_datapaths_that_follow_late_lead_nobody_astray(count: int, seed: int) -> None:
    """Whatever mix of old and new tables the switches go by, along shortest ways."""
    random = randoms.Random(seed)
    topology = network(count, random)
    old, new = (Place(f"s{random.randrange(count)}", port) for port in (1001, 1002))
    before: Tables = {
        switch: {entry(0).place: entry(port)} for switch, (_far, port) in trees.towards(topology, old).items()
    }
    prepared, after = moved(before, topology, new)
    assert set(ends(prepared, topology).values()) == {old}
    mixed = {switch: random.choice((prepared, after))[switch] for switch in before}
    assert set(ends(mixed, topology).values()) <= {old, new}
    for switch in before:
        none_is_overtaken(topology, switch, (before, mixed, after))
    same, returned = moved(after, topology, old)
    assert same == after  # its guards are there
    mixed = {switch: random.choice((prepared, after, returned))[switch] for switch in before}
    assert set(ends(mixed, topology).values()) <= {old, new}


def none_is_overtaken(topology: Topology, start: str, states: tuple[Tables, Tables, Tables]) -> None:
    """What comes to the new place has gone the old way, and from some switch on the new one: no further round than what follows it."""
    before, now, after = ({name: list(some.values()) for name, some in one.items()} for one in states)
    old, walk = (trace.walk(one, topology, Place(start, 9999), PACKET) for one in (before, now))
    if walk.end != old.end:
        common = sum(takewhile(bool, (one == other for one, other in zip(walk.path, old.path, strict=False))))
        turned = walk.path[common]
        straight = trace.walk(after, topology, Place(turned.switch, turned.in_port), PACKET)
        assert walk.path[common:] == straight.path


def moved(before: Tables, topology: Topology, end: Place) -> tuple[Tables, Tables]:
    """Prepared, and cut over."""
    made = trees.plan({switch: list(table.values()) for switch, table in before.items()}, topology, end)
    states = []
    state = before
    for steps in ([made.prepare], made.cuts):
        state = {switch: dict(table) for switch, table in state.items()}
        for changes in steps:
            for switch, some in changes.items():
                for one in some:
                    apply(state, switch, one)
        states.append(state)
    return states[0], states[1]


@given(st.integers(2, 9), st.integers(0, 1 << 32))
def test_the_tree_is_of_shortest_paths(count: int, seed: int) -> None:
    topology = network(count, randoms.Random(seed))
    end = Place("s0", 1001)
    graph = networkx.Graph([(one.switch, other.switch) for one, other in topology.beyond.items()])
    graph.add_node("s0")
    found = trees.towards(topology, end)
    assert {switch: distance for switch, (distance, _port) in found.items()} == dict(
        networkx.single_source_shortest_path_length(graph, "s0")
    )


LINE = Topology(["s1", "s2"], [(Place("s1", 2), Place("s2", 1))])


def test_what_cannot_be() -> None:
    with pytest.raises(RefusedError, match="an entry of s1 goes by the port"):
        trees.plan({"s1": [entry(2, in_port=3)]}, LINE, Place("s2", 9))
    with pytest.raises(RefusedError, match="an entry of s1 sends to 0 ports"):
        trees.plan({"s1": [entry(2)._replace(instructions=b"")]}, LINE, Place("s2", 9))
    apart = Topology(["s1", "s2"], [])
    with pytest.raises(NotFoundError, match="no path from s1 to s2"):
        trees.plan({"s1": [entry(2)]}, apart, Place("s2", 9))


def test_what_leads_there_already_is_left_alone() -> None:
    assert not trees.plan({"s1": [entry(2)], "s2": [entry(9)]}, LINE, Place("s2", 9)).cuts
