"""A situation, of what a daemon and switches said; and nonsense, which is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.follow import Limits, Policy, Verdict, decide
from controller_bridge.follow.gather import Map, Traffic, elsewhere, gather, traffic
from controller_bridge.follow.places import Seen
from controller_bridge.topology import Place, Topology
from vmnet.cli.following import look_json
from vmnet.errors import PeerError

HOST = {"cpu_percent": 10.0, "cpus": 4, "memory_available_bytes": 3 << 30, "memory_total_bytes": 4 << 30}
FACTS: dict[str, Any] = {
    "t": 1000.0,
    "host": "h1",
    "vm": {
        "name": "vm1",
        "uuid": "u",
        "host": "h1",
        "memory_bytes": 1 << 27,
        "cpus_busy": 0.25,
        "moved": 900.0,
    },
    "hosts": {"h1": HOST, "h3": HOST, "h4": HOST},
    "missing": {"h2": "peer h2 did not answer 'facts' within 5 s"},
}
MAC = bytes.fromhex("525400000101")
TRAFFIC: dict[str, Any] = {
    "addresses": [
        {"address": "10.1.0.101", "mac": "52:54:00:00:01:01", "bytes_per_s": 900.0},
        {"address": "10.9.9.9", "mac": "02:76:6d:67:77:01", "bytes_per_s": 50.0},
    ],
    "other_bytes_per_s": 7.0,
}
KNOWN = Map(
    Topology({"s1", "s2"}, [(Place("s1", 1), Place("s2", 1))]),
    {"h1": Place("s1", 2), "h2": Place("s1", 3), "h3": Place("s2", 2)},
    {"10.1.0.101": Place("s2", 3)},
    {"10.1.0.101": "s2:room1"},
    {"10.9.9.9": "no switch's table says where it is"},
    ("left out: s9: no switch at tcp:192.0.2.9:6653",),
)


def test_all_together() -> None:
    found = gather(FACTS, traffic(TRAFFIC), KNOWN)
    assert found.situation.traffic == {"10.1.0.101": 900.0}
    assert found.situation.hops == {"h1": {"10.1.0.101": 3}, "h3": {"10.1.0.101": 2}}
    assert (found.now_s, found.moved_s) == (1000.0, 900.0)
    assert found.notes == (
        "h2 is left out: peer h2 did not answer 'facts' within 5 s",
        "it is not known where h4 is: write it in [hosts] of the fabric's file",
        "10.9.9.9 does not count (50 B/s): no switch's table says where it is",
        "7 B/s do not count: with too many addresses to tell them apart",
        "left out: s9: no switch at tcp:192.0.2.9:6653",
    )
    decision = decide(found.situation, Policy.NEAREST, Limits(), now_s=found.now_s, moved_s=found.moved_s)
    assert (decision.verdict, decision.host) == (Verdict.MOVE, "h3")
    said = look_json(found, decision, Policy.NEAREST, True)
    assert said["clients"] == [{"address": "10.1.0.101", "bytes_per_s": 900.0, "place": "s2:room1"}]
    assert said["hosts"]["h4"]["cost"] is None, "out of reach; JSON has no infinity"
    assert said["hosts"]["h3"]["hops"] == {"10.1.0.101": 2}


def test_without_a_fabric_nothing_is_known_of_hops() -> None:
    found = gather(FACTS, Traffic(), None)
    assert (found.situation.hops, found.situation.traffic) == ({}, {})
    assert found.notes == ("h2 is left out: peer h2 did not answer 'facts' within 5 s",)


def test_a_move_in_the_future_is_one_of_now() -> None:
    facts = {**FACTS, "vm": {**FACTS["vm"], "moved": 5000.0}}
    assert gather(facts, Traffic(), None).moved_s == 1000.0
    facts = {**FACTS, "vm": {**FACTS["vm"], "moved": None}}
    assert gather(facts, Traffic(), None).moved_s is None


def test_elsewhere() -> None:
    assert elsewhere(FACTS) is None
    assert elsewhere({"t": 1.0, "host": "h1", "vm": {"name": "vm1", "uuid": "u", "host": "h3"}}) == "h3"


PATHS = [
    ("t",), ("vm",), ("hosts",), ("missing",), ("vm", "memory_bytes"), ("vm", "cpus_busy"), ("vm", "moved"),
    ("hosts", "h3"), ("hosts", "h3", "cpu_percent"), ("hosts", "h3", "cpus"), ("hosts", "h3", "memory_total_bytes"),
]  # fmt: skip
ODD = st.sampled_from([[], "x", -1, float("nan"), float("inf"), 10**400, True])


@given(st.sampled_from(PATHS), ODD)
def test_an_answer_that_makes_no_sense_is_refused(path: tuple[str, ...], wrong: object) -> None:
    facts = copy.deepcopy(FACTS)
    at = facts
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = wrong
    with pytest.raises(PeerError, match="the daemon's answer to 'facts' makes no sense"):
        gather(facts, Traffic(), None)


@pytest.mark.parametrize("wrong", [{}, {"vm": "vm1", "host": "h1"}, {"vm": {"host": 3}, "host": "h1"}])
def test_nonsense_about_where_it_is(wrong: dict[str, Any]) -> None:
    with pytest.raises(PeerError, match="'facts' makes no sense"):
        elsewhere(wrong)


@pytest.mark.parametrize(
    "one",
    [
        {},
        {"address": "10.0.0.1", "mac": "02:00", "bytes_per_s": 1.0},
        {"address": "10.0.0.1", "mac": "zz", "bytes_per_s": 1.0},
        {"address": "10.0.0.1", "mac": None, "bytes_per_s": 1.0},
        {"address": "10.0.0.1", "mac": "02:00:00:00:00:01", "bytes_per_s": -1.0},
    ],
)
def test_nonsense_about_traffic(one: dict[str, Any]) -> None:
    with pytest.raises(PeerError, match="'traffic' makes no sense"):
        traffic({"addresses": [one], "other_bytes_per_s": 0})


def test_traffic_is_read() -> None:
    assert traffic(TRAFFIC).seen[0] == Seen("10.1.0.101", MAC, 900.0)
