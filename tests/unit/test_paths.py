"""Plans to move flows, carried out on model switches: at no instant, with changes in whatever order, does a packet find no way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.openflow import action
from controller_bridge.openflow.flow import SAME_OWNER, Change, Command, Flow
from controller_bridge.openflow.match import Field, Match
from controller_bridge.paths import Hop, Path, Plan, plan, together
from vmnet.errors import RefusedError

FLOWS = [bytes([0, 0, 0, 0, 0, number]) for number in range(3)]
ENTRY_PORT, OLD_EXIT, NEW_EXIT = 1, 1001, 1002


def port_to(number: int) -> int:
    return 100 + number


def path(numbers: Sequence[int], end: int) -> Path:
    """Over the switches with ``numbers``; port 100+n leads to switch n."""
    hops = []
    for at, number in enumerate(numbers):
        came = port_to(numbers[at - 1]) if at else ENTRY_PORT
        goes = port_to(numbers[at + 1]) if at + 1 < len(numbers) else end
        hops.append(Hop(f"s{number}", came, goes))
    return tuple(hops)


def entry(destination: bytes, hop: Hop, ported: bool) -> Flow:
    port = {"in_port": hop.in_port} if ported else {}
    match = Match.of(eth_dst=destination, **port)
    return Flow(100, match, action.apply([action.output(hop.out_port)]), cookie=7)


@dataclass
class Network:
    tables: dict[str, dict[tuple[int, int, bytes], Flow]] = field(default_factory=dict)

    def apply(self, switch: str, change: Change) -> None:
        table = self.tables.setdefault(switch, {})
        there = table.get(change.flow.place)
        if change.command is Command.ADD:
            assert there is None, "an entry that is there already is added"
            table[change.flow.place] = change.flow
        else:
            assert there is not None and change.mask == SAME_OWNER and there.cookie == change.flow.cookie
            if change.command is Command.MODIFY_STRICT:
                table[change.flow.place] = there._replace(instructions=change.flow.instructions)
            else:
                del table[change.flow.place]

    def sends(self, switch: str, in_port: int, destination: bytes) -> int:
        """By which port; AssertionError if nowhere."""
        fits = [
            one
            for one in self.tables.get(switch, {}).values()
            if one.match.get(Field.ETH_DST) == destination
            and one.match.get(Field.IN_PORT) in (None, in_port.to_bytes(4, "big"))
        ]
        assert fits, f"{switch} has no entry for what comes by port {in_port}"
        best = max(fits, key=lambda one: one.priority)
        return action.outputs(best.instructions)[0]

    def arrives(self, switch: str, in_port: int, destination: bytes) -> int:
        """The port at the edge, from a packet at ``switch`` on; AssertionError if it gets lost or goes in a circle."""
        for _ in range(50):
            out = self.sends(switch, in_port, destination)
            if out >= OLD_EXIT:
                return out
            switch, in_port = f"s{out - 100}", port_to(int(switch[1:]))
        raise AssertionError("it goes in a circle")


def built(old: Path, ported: dict[str, bool]) -> tuple[Network, dict[str, list[Flow]]]:
    network, entries = Network(), {}
    for hop in old:
        entries[hop.switch] = [entry(one, hop, ported.get(hop.switch, False)) for one in FLOWS]
        for one in entries[hop.switch]:
            network.apply(hop.switch, Change(Command.ADD, one))
    return network, entries


def listed(changes: dict[str, list[Change]]) -> list[tuple[str, Change]]:
    return [(switch, one) for switch, some in changes.items() for one in some]


switches = st.lists(st.integers(1, 8), unique=True, max_size=6)


@given(
    switches,
    switches,
    st.booleans(),
    st.dictionaries(st.sampled_from([f"s{n}" for n in range(9)]), st.booleans()),
    st.randoms(),
)
def test_every_packet_finds_its_way_at_every_instant(
    old_numbers, new_numbers, same_exit, ported, random
) -> None:  # type: ignore[no-untyped-def]
    old = path([0, *old_numbers], OLD_EXIT)
    last_same = old_numbers[-1:] == new_numbers[-1:]
    new = path([0, *new_numbers], OLD_EXIT if same_exit and last_same else NEW_EXIT)
    network, entries = built(old, ported)
    made = plan(entries, old, new)
    exits = {old[-1].out_port, new[-1].out_port}

    def check(allowed: set[int], hops: Path) -> None:
        for one in FLOWS:
            assert network.arrives("s0", ENTRY_PORT, one) in allowed
            for hop in hops:
                assert network.arrives(hop.switch, hop.in_port, one) in exits

    def carry_out(changes: dict[str, list[Change]], allowed: set[int], hops: Path) -> None:
        one_by_one = listed(changes)
        random.shuffle(one_by_one)
        for switch, change in one_by_one:
            network.apply(switch, change)
            check(allowed, hops)

    carry_out(made.prepare, {OLD_EXIT}, old)
    check({OLD_EXIT}, new[1:] if not made.cuts else old)
    for changes in made.cuts:
        for switch, change in listed(changes):
            network.apply(switch, change)
        check(exits, old)
    check({new[-1].out_port}, old)
    ordered = {switch: list(some) for switch, some in made.finish.items()}
    for switch, some in ordered.items():
        for change in some:
            network.apply(switch, change)
            check({new[-1].out_port}, new)
    for hop in new:
        for one in FLOWS:
            assert network.sends(hop.switch, hop.in_port, one) == hop.out_port
    wanted = {hop.switch for hop in new}
    assert {switch for switch, table in network.tables.items() if table} == wanted
    assert all(len(table) == len(FLOWS) for switch, table in network.tables.items() if switch in wanted)


@given(
    switches,
    switches,
    st.dictionaries(st.sampled_from([f"s{n}" for n in range(9)]), st.booleans()),
    st.booleans(),
)
def test_rolling_back_leaves_everything_as_it_was(old_numbers, new_numbers, ported, cut) -> None:  # type: ignore[no-untyped-def]
    old, new = path([0, *old_numbers], OLD_EXIT), path([0, *new_numbers], NEW_EXIT)
    network, entries = built(old, ported)
    before = {switch: dict(table) for switch, table in network.tables.items()}
    made: Plan = plan(entries, old, new)
    steps = [listed(made.prepare)]
    if cut:
        steps += [listed(one) for one in [*made.cuts, *made.undo_cuts]]
    steps += [listed(made.undo_prepare)]
    for switch, change in itertools.chain.from_iterable(steps):
        network.apply(switch, change)
    assert {switch: table for switch, table in network.tables.items() if table} == before


def test_as_in_the_paper() -> None:
    """Figure 3: the new path on every switch but the first common one, then that one's entry, then the old path."""
    old, new = path([0, 1, 3], OLD_EXIT), path([0, 2, 3], OLD_EXIT)
    _network, entries = built(old, {})
    made = plan(entries, old, new)
    assert set(made.prepare) == {"s2"}
    assert [list(one) for one in made.cuts] == [["s0"]]
    assert set(made.finish) == {"s1"}


REFUSED = {
    "another beginning": (path([0, 1], OLD_EXIT), path([2, 1], OLD_EXIT)),
    "a circle": (path([0, 1], OLD_EXIT), path([0, 1, 0], OLD_EXIT)),
    "no path": (path([0, 1], OLD_EXIT), ()),
}


@pytest.mark.parametrize("what", REFUSED)
def test_paths_that_cannot_be(what: str) -> None:
    old, new = REFUSED[what]
    _network, entries = built(old, {})
    with pytest.raises(RefusedError):
        plan(entries, old, new)


def test_entries_that_are_not_as_they_were() -> None:
    old, new = path([0, 1], OLD_EXIT), path([0, 2], OLD_EXIT)
    _network, entries = built(path([0, 3], OLD_EXIT), {})
    with pytest.raises(RefusedError, match="does not send to port 101"):
        plan(entries, old, new)
    with pytest.raises(RefusedError, match="none of the flows"):
        plan({"s0": built(old, {})[1]["s0"]}, old, new)


def test_nothing_can_come_before_the_highest_priority() -> None:
    old, new = path([0, 1, 3], OLD_EXIT), path([0, 2, 3], NEW_EXIT)
    _network, entries = built(old, {})
    entries["s3"] = [one._replace(priority=0xFFFF) for one in entries["s3"]]
    with pytest.raises(RefusedError, match="highest priority"):
        plan(entries, old, new)


@given(st.lists(st.tuples(switches, switches), min_size=1, max_size=3), st.booleans(), st.randoms())
def test_flows_that_share_no_entry_move_together(ways, ported, random) -> None:  # type: ignore[no-untyped-def]
    network, plans = Network(), []
    for destination, (old_numbers, new_numbers) in zip(FLOWS, ways, strict=False):
        old, new = path([0, *old_numbers], OLD_EXIT), path([0, *new_numbers], NEW_EXIT)
        entries = {hop.switch: [entry(destination, hop, ported)] for hop in old}
        for switch, some in entries.items():
            network.apply(switch, Change(Command.ADD, some[0]))
        plans.append(plan(entries, old, new))
    before = {switch: dict(table) for switch, table in network.tables.items()}
    made = together(plans)

    def carry_out(steps: list[dict[str, list[Change]]], allowed: set[int], shuffled: bool = True) -> None:
        for changes in steps:
            one_by_one = listed(changes)
            if shuffled:
                random.shuffle(one_by_one)
            for switch, change in one_by_one:
                network.apply(switch, change)
                for destination, _ in zip(FLOWS, ways, strict=False):
                    assert network.arrives("s0", ENTRY_PORT, destination) in allowed

    carry_out([made.prepare], {OLD_EXIT})
    carry_out(made.cuts, {OLD_EXIT, NEW_EXIT})
    carry_out(made.undo_cuts, {OLD_EXIT, NEW_EXIT})
    carry_out([made.undo_prepare], {OLD_EXIT})
    assert {s: t for s, t in network.tables.items() if t} == before
    carry_out([made.prepare], {OLD_EXIT})
    carry_out(made.cuts, {OLD_EXIT, NEW_EXIT})
    carry_out([made.finish], {NEW_EXIT}, shuffled=False)
    for destination, (_, new_numbers) in zip(FLOWS, ways, strict=False):
        for hop in path([0, *new_numbers], NEW_EXIT):
            assert network.sends(hop.switch, hop.in_port, destination) == hop.out_port
