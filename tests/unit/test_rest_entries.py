"""Entries given to a controller over REST: no order in which switches take them loses a packet, and what its answers say."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from controller_bridge.rerouters import rest_entries
from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.rest import open_rest
from controller_bridge.rerouters.rest_entries import Entry, Turn
from vmnet.errors import ConfigError, PeerError, RefusedError

MAC = "52:54:00:00:00:01"
MOVE = Move("m1", "blue", "a", "b", (MAC.upper(),))
OWN = rest_entries.cookie(MOVE)

# a's switch 1 - 2 - 3 b's switch; every switch has a client of its own.
LINKS = {(1, 1): (2, 1), (2, 1): (1, 1), (2, 2): (3, 1), (3, 1): (2, 2)}
ENDS = {(1, 2): "a", (1, 3): "c", (2, 3): "c", (3, 2): "b", (3, 3): "c"}
HOSTS = {"a": {1: 2, 2: 1, 3: 1}, "b": {1: 1, 2: 2, 3: 2}}
WAYS = rest_entries.turns(MOVE, HOSTS)
Tables = dict[int, list[dict[str, Any]]]

ALONE = {one.datapath: [{"priority": 100, "match": {}, "actions": [{"port": one.old}]}] for one in WAYS}
PREPARED = {one.datapath: ALONE[one.datapath] + rest_entries.prepared(MOVE, one, 60000, 0) for one in WAYS}
CUT = {one.datapath: PREPARED[one.datapath] + rest_entries.cut(MOVE, one, 60000, 0) for one in WAYS}


def arrivals(states: list[Tables]) -> set[str]:
    """Wherever a packet of any client can come out, if switches change from one state to the next while it is on its way."""
    found, seen = set(), set()
    todo = [(place, 0) for place, end in ENDS.items() if end == "c"]
    while todo:
        place, at = todo.pop()
        if (place, at) in seen:
            continue
        seen.add((place, at))
        for later in range(at, len(states)):
            datapath, port = place
            fitting = [one for one in states[later][datapath] if one["match"].get("in_port", port) == port]
            out = max(fitting, key=lambda one: int(one["priority"]))["actions"][0]["port"]
            if out == port:
                found.add("dropped")
            elif (datapath, out) in LINKS:
                todo.append((LINKS[datapath, out], later))
            else:
                found.add(ENDS[datapath, out])
    return found


def orders(begin: Tables, end: Tables) -> list[list[Tables]]:
    made = []
    for order in itertools.permutations(begin):
        states = [begin]
        for name in order:
            states.append(states[-1] | {name: end[name]})
        made.append(states)
    return made


@pytest.mark.parametrize(
    ("begin", "end", "arrive"),
    [
        (ALONE, PREPARED, {"a"}),
        (PREPARED, CUT, {"a", "b"}),
        (CUT, PREPARED, {"a", "b"}),
        (PREPARED, ALONE, {"a"}),
    ],
)
def test_in_whatever_order_switches_are_told(begin: Tables, end: Tables, arrive: set[str]) -> None:
    for states in orders(begin, end):
        assert arrivals(states) == arrive
    assert arrivals([CUT]) == {"b"}


def test_without_having_been_prepared_packets_would_be_lost() -> None:
    bare = {one.datapath: ALONE[one.datapath] + rest_entries.cut(MOVE, one, 60000, 0) for one in WAYS}
    assert any("dropped" in arrivals(states) for states in orders(ALONE, bare))


COMMON = {
    "priority": 9,
    "cookie": 7,
    "packet_count": 3,
    "idle_timeout": 0,
    "hard_timeout": 5,
    "match": {"dl_dst": MAC},
}


@pytest.mark.parametrize(
    ("said", "output"),
    [
        ({"actions": ["OUTPUT:4"]}, 4),
        ({"actions": ["POP_VLAN", "OUTPUT:4"]}, None),
        ({"actions": ["OUTPUT:CONTROLLER"]}, None),
        ({"actions": []}, None),
        ({"instructions": [{"type": "APPLY_ACTIONS", "actions": [{"type": "OUTPUT", "port": 4}]}]}, 4),
        (
            {
                "instructions": [
                    {"type": "APPLY_ACTIONS", "actions": [{"type": "POP_VLAN"}, {"type": "OUTPUT"}]}
                ]
            },
            None,
        ),
        ({"instructions": [{"type": "GOTO_TABLE", "table_id": 1}]}, None),
        ({"instructions": []}, None),
    ],
)
def test_what_the_controller_says_of_an_entry(said: dict[str, Any], output: int | None) -> None:
    (one,) = rest_entries.entries_in({"1": [COMMON | said]}, 1)
    assert one == Entry(9, {"dl_dst": MAC}, output, 7, 3, 0, 5)
    assert rest_entries.of_mac(one, MOVE.macs)


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"1": None}, {"1": [{}]}, {"1": [COMMON | {"actions": [1]}]}]
)
def test_answers_that_are_none(answer: Any) -> None:
    with pytest.raises(PeerError, match="not one of ofctl_rest's"):
        rest_entries.entries_in(answer, 1)


def test_what_is_asked_for_is_found_again() -> None:
    turn = WAYS[0]
    bodies = rest_entries.prepared(MOVE, turn, 60000, 0) + rest_entries.cut(MOVE, turn, 60000, 0)
    there = [
        Entry(one["priority"], {"dl_dst": MAC} | ({"in_port": port} if (port := one["match"].get("in_port")) else {}),
              one["actions"][0]["port"], one["cookie"], 0)
        for one in bodies
    ]  # fmt: skip
    for number, body in enumerate(bodies):
        assert rest_entries.has(there, body)
        assert not rest_entries.has(there[:number] + there[number + 1 :], body)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (Entry(60000, {"dl_dst": MAC}, 2, 7, 0), "has priority 60000; give a `priority` above it"),
        (
            Entry(60001, {"dl_dst": MAC}, 2, OWN ^ 1, 0),
            "is of another move; finish or roll back that one first",
        ),
        (Entry(5, {"dl_dst": MAC}, None, 7, 0), "does more than send to a port"),
        (Entry(5, {"dl_dst": MAC}, 9, 7, 0), "sends to port 9, not to 2, where a is"),
    ],
)
def test_entries_that_cannot_be_turned_in_the_end(entry: Entry, says: str) -> None:
    turn = Turn(1, 2, 1)
    with pytest.raises(RefusedError, match=says):
        rest_entries.check_own([entry], MOVE, turn, 60000)
    fine = [
        Entry(59999, {"dl_dst": MAC}, 2, OWN ^ 1, 0),
        Entry(60001, {"dl_dst": MAC}, 1, OWN, 0),
        Entry(9, {}, None, 7, 0),
    ]
    rest_entries.check_own(fine, MOVE, turn, 60000)


def test_settings() -> None:
    known = {"url": "http://127.0.0.1:8080", "hosts": {"a": {"0x1": 1, "2": 2}, "b": {"1": 2, "2": 1}}}
    assert open_rest(known).hosts == {"a": {1: 1, 2: 2}, "b": {1: 2, 2: 1}}
    for more, says in (
        ({"url": "127.0.0.1"}, "is no address of an HTTP service"),
        ({"hosts": {"a": {"1": 1}, "b": {"2": 1}}}, "host a: no port given for switch 2"),
        ({"hosts": {"a": {"s1": 1}}}, "hosts.a: give datapath ids and port numbers"),
        ({"priority": 70000}, "priority is not between 2 and 65534"),
        ({"table": "0"}, "table is not a whole number"),
        ({"colour": "red"}, "has no colour"),
    ):
        with pytest.raises(ConfigError, match=says):
            open_rest(known | more)
