"""The rerouting and the controller bench: what is run, what a row says, how rows add up."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from controller_bridge.core import neighbours
from controller_bridge.openflow import packet
from controller_bridge.openflow.flow import SAME_OWNER
from controller_bridge.openflow.wire import Framer
from vmnet.bench import controller, emulated, reroute, reroute_output, reroute_rivals, reroute_rows
from vmnet.bench.reroute_rows import Row
from vmnet.bench.reroute_stage import COOKIE, destination


def settings(**given: object) -> reroute.Settings:
    usual = {
        "schemes": ["vmnet", "ovs-ofctl"],
        "flows": [1, 5000],
        "rate_pps": 100,
        "runs": 2,
        "packets_up_to": 1000,
    }
    return reroute.Settings(**usual | given)  # type: ignore[arg-type]


def test_schemes_take_turns_and_traffic_has_a_control() -> None:
    steps = [
        (one.case.scheme, one.case.flows, one.case.rate_pps, one.run, one.control)
        for one in reroute.steps(settings())
    ]
    assert steps[:4] == [
        ("vmnet", 1, 0, 0, False), ("ovs-ofctl", 1, 0, 0, False), ("vmnet", 1, 100, 0, True), ("vmnet", 1, 100, 0, False),
    ]  # fmt: skip
    assert not [one for one in steps if one[1] == 5000 and one[2]]
    assert not [one for one in reroute.steps(settings(rate_pps=0)) if one.case.rate_pps]


def test_os_ken_is_left_out_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reroute, "has_osken", lambda: False)
    assert {one.case.scheme for one in reroute.steps(settings(schemes=["vmnet", "os-ken"]))} == {"vmnet"}


ROWS = [
    Row("vmnet", 10, 0, 0, install_ms=1.0, cut_ms=2.0, changes_per_s=5000.0),
    Row("vmnet", 10, 0, 1, install_ms=3.0, cut_ms=4.0, changes_per_s=7000.0),
    Row("vmnet", 10, 0, 2, error="a switch died"),
    Row("vmnet", 10, 100, 0, sent=50, lost=2, duplicated=0, reordered=0, longest_gap_ms=1.0),
]


def test_rows_add_up() -> None:
    timed, watched = reroute_rows.summarise(ROWS)
    assert (timed["runs"], timed["errors"], timed["cut_ms"]["median"], timed["changes_per_s"]["max"]) == (
        2,
        1,
        3.0,
        7000.0,
    )
    assert (watched["sent"], watched["lost_in_all"]) == (50, 2)


def test_rows_are_told() -> None:
    assert (
        reroute_output.describe(ROWS[0])
        == "vmnet 10 flows 0/s run 0: install 1.0 ms, cut 2.0 ms, 5000.0 changes/s"
    )
    assert reroute_output.describe(ROWS[2]).endswith(": a switch died")
    assert reroute_output.describe(ROWS[3]).endswith(": lost 2 of 50, dup 0, reordered 0")


def test_the_same_changes_for_ovs_ofctl() -> None:
    added, changed = (list(reroute_rivals._lines(2, 7, new)) for new in (True, False))
    assert added[0] == f"add cookie={COOKIE:#x},priority=40000,ip,nw_dst=10.3.0.2,actions=output:7\n"
    assert (
        changed[1]
        == f"modify_strict cookie={COOKIE:#x}/{SAME_OWNER:#x},priority=40000,ip,nw_dst=10.128.0.1,actions=output:7\n"
    )
    assert len({destination(number) for number in range(1000)}) == 1000


def test_what_an_emulated_switch_asks() -> None:
    (mac, own), (_other_mac, other) = emulated.stations(300)
    assert (own, other) == (IPv4Address("10.1.44.1"), IPv4Address("10.1.44.2"))
    (raw,) = Framer().feed(emulated.packet_in(1, neighbours.question(other, mac, own)))
    found = packet.packet_in(raw)
    said = neighbours.read(found.data)
    assert found.in_port == 1
    assert said is not None and (said.owns, said.asks) == (own, other)


def test_the_cases_of_the_controller_bench() -> None:
    found = controller.cases(["vmnet", "asyncio"], [1, 64], 32)
    assert [(one.scheme, one.switches, one.window) for one in found] == [
        ("vmnet", 1, 1), ("asyncio", 1, 1), ("vmnet", 1, 32), ("asyncio", 1, 32), ("vmnet", 64, 32), ("asyncio", 64, 32),
    ]  # fmt: skip
    told = controller.describe(
        controller.Row("vmnet", 1, 1, 0, per_s=10.0, latency_p50_us=5.0, latency_p99_us=9.0)
    )
    assert told == "vmnet 1 switches, window 1, run 0: 10/s, 5 us (p99 9)"
