"""Decisions on the campus of docs/lab.md, word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller_bridge.follow import Host, Limits, Policy, Situation, Verdict, Vm, decide
from controller_bridge.follow.facts import MIB
from controller_bridge.follow.ways import hops
from controller_bridge.topology import Place, Topology
from vmnet.errors import ConfigError, NotFoundError
from vmnet.lab import schema

IDLE = Host(cpu_percent=10.0, cpus=4, memory_available_bytes=3072 * MIB, memory_total_bytes=4096 * MIB)


def campus(at: str = "s2", /, **traffic: float) -> Situation:
    """Topology campus with c1 at a switch."""
    topology = schema.parse(schema.load_document(schema.find("campus")[1]))
    switches = {name for name, node in topology.nodes.items() if node.bridges and node.bridges[0].openflow}
    links, ends = [], {}
    for number, link in enumerate(topology.links):
        one, other = (Place(end.node, number) for end in link.ends)
        if {one.switch, other.switch} <= switches:
            links.append((one, other))
        elif other.switch in switches and one.switch != "lan":
            ends[one.switch] = other
    hosts = {host.name: IDLE for host in topology.hosts}
    clients = {"c1": Place(at, 99), "c2": ends["c2"], "c3": ends["c3"]}
    ways = hops(Topology(switches, links), {name: ends[name] for name in hosts}, clients)
    return Situation(Vm("vm1", "h1", 128 * MIB, 0.2), hosts, ways, traffic)


def test_the_vm_follows_its_client_to_the_other_building() -> None:
    found = decide(campus("s5", c1=9000.0, c2=1000.0), Policy.NEAREST, Limits(), now_s=0.0)
    assert (found.verdict, found.host) == (Verdict.MOVE, "h3")
    assert found.why == (
        "vm1 should move from h1 to h3: 2.30 hops on average on h3 instead of 4.70 hops on average on h1, "
        "a gain of 2.40 hops (at least 0.50 hops is asked for)",
        "c1 has 90.0 % of the traffic (9000 B/s): 2 hops from h3, 5 hops from h1",
        "c2 has 10.0 % of the traffic (1000 B/s): 5 hops from h3, 2 hops from h1",
        "not h2: 3.90 hops on average, 1.60 hops worse than h3",
        "not h4: 3.10 hops on average, 0.80 hops worse than h3",
    )


def test_it_stays_where_it_is_nearest() -> None:
    found = decide(campus(c1=9000.0, c2=0.0), Policy.NEAREST, Limits(), now_s=0.0)
    assert (found.verdict, found.host, found.gain) == (Verdict.STAY, "h1", 0.0)
    assert found.why[:3] == (
        "vm1 stays on h1 (2.00 hops on average): no other host that can take it is better",
        "c1 has 100.0 % of the traffic (9000 B/s): 2 hops from h1",
        "c2 does not count: it has no traffic",
    )


def test_it_waits_until_the_pause_is_over() -> None:
    found = decide(campus("s5", c1=1.0), Policy.NEAREST, Limits(), now_s=120.0, moved_s=100.0)
    assert (found.verdict, found.host, found.best, found.again_s) == (Verdict.WAIT, "h1", "h3", 160.0)
    assert found.why[0].startswith(
        "vm1 should move from h1 to h3, but it moved 20 s ago and may again in 40 s: 2.00 hops on average on h3"
    )


def test_a_full_host_is_not_taken_and_the_next_best_is() -> None:
    situation = campus("s5", c1=1.0)
    full = replace(IDLE, memory_available_bytes=300 * MIB)
    found = decide(
        replace(situation, hosts={**situation.hosts, "h3": full}), Policy.NEAREST, Limits(), now_s=0.0
    )
    assert (found.verdict, found.host) == (Verdict.MOVE, "h4")
    reason = "no room: 172 MiB of memory would be left, 256 MiB are asked for"
    assert f"not h3 (2.00 hops on average): {reason}" in found.why


def test_no_room_anywhere_is_a_refusal() -> None:
    situation = campus("s5", c1=1.0)
    busy = replace(IDLE, cpu_percent=84.0)
    found = decide(
        replace(situation, hosts={"h1": IDLE, "h3": busy, "h4": busy}), Policy.NEAREST, Limits(), now_s=0.0
    )
    assert (found.verdict, found.host) == (Verdict.REFUSED, "h1")
    assert found.why[0] == (
        "vm1 has to stay on h1 (5.00 hops on average): 2.00 hops on average on h3 would be a gain of 3.00 hops, "
        "but no such host can take it"
    )
    assert (
        "not h3 (2.00 hops on average): no room: its processors would be 89.0 % busy, 85.0 % are allowed"
        in found.why
    )


def test_load_goes_where_there_is_most_left_and_pack_where_there_is_least() -> None:
    situation = campus()
    hosts = {
        "h1": replace(IDLE, cpu_percent=50.0),
        "h2": replace(IDLE, cpu_percent=70.0),
        "h3": replace(IDLE, cpu_percent=30.0),
        "h4": replace(IDLE, cpu_percent=90.0),
    }
    situation = replace(situation, hosts=hosts)
    spread = decide(situation, Policy.LOAD, Limits(), now_s=0.0)
    assert (spread.verdict, spread.host, round(spread.gain, 6)) == (Verdict.MOVE, "h3", 15.0)
    assert spread.why[0].startswith(
        "vm1 should move from h1 to h3: 35.0 % loaded with it on h3 instead of 50.0 %"
    )
    packed = decide(situation, Policy.PACK, Limits(), now_s=0.0)
    assert (packed.verdict, packed.host, round(packed.gain, 6)) == (Verdict.MOVE, "h2", 25.0)
    assert "not h4 (90.0 % loaded without it): no room: its processors would be 95.0 % busy" in "\n".join(
        packed.why
    )


def test_a_small_gain_is_none() -> None:
    found = decide(campus(c1=6.0, c3=5.0), Policy.NEAREST, Limits(gain_hops=1.0), now_s=0.0)
    assert found.verdict is Verdict.STAY


def test_nobody_speaks_with_it() -> None:
    found = decide(campus(c1=0.0), Policy.NEAREST, Limits(), now_s=0.0)
    assert (found.verdict, found.why[0]) == (
        Verdict.STAY,
        "vm1 stays on h1: no client that can be reached has traffic",
    )


def test_links_are_counted_with_both_ends_but_not_on_one_port() -> None:
    topology = Topology({"s1", "s2", "s3"}, [(Place("s1", 1), Place("s2", 1))])
    hosts = {"h1": Place("s1", 2), "h2": Place("s2", 2), "h3": Place("s3", 2)}
    clients = {"c1": Place("s1", 3), "vm2": Place("s1", 2)}
    assert hops(topology, hosts, clients) == {"h1": {"c1": 2, "vm2": 0}, "h2": {"c1": 3, "vm2": 3}, "h3": {}}


def test_who_is_out_of_reach_is_worth_any_move() -> None:
    ways = {"h1": {"c1": 2}, "h2": {}}
    situation = Situation(Vm("v", "h2", 0), {"h1": IDLE, "h2": IDLE}, ways, {"c1": 1.0})
    found = decide(situation, Policy.NEAREST, Limits(), now_s=0.0)
    assert (found.verdict, found.host, found.gain) == (Verdict.MOVE, "h1", float("inf"))
    assert "instead of a client out of reach on h2, a gain of more than can be counted" in found.why[0]


def test_without_a_fabric_loads_decide_alone() -> None:
    hosts = {"h1": replace(IDLE, cpu_percent=80.0), "h2": IDLE}
    situation = Situation(Vm("v", "h1", 0), hosts, {}, {"c1": 1.0})
    assert decide(situation, Policy.LOAD, Limits(), now_s=0.0).host == "h2"
    assert decide(situation, Policy.NEAREST, Limits(), now_s=0.0).verdict is Verdict.STAY


def test_no_host_reaches_every_client() -> None:
    islands = {"h1": {"c1": 2}, "h2": {"c2": 2}}
    traffic = {"c1": 1.0, "c2": 9.0, "c3": 5.0}
    situation = Situation(Vm("v", "h1", 0), {"h1": IDLE, "h2": IDLE}, islands, traffic)
    assert decide(situation, Policy.NEAREST, Limits(), now_s=0.0).why == (
        "v stays on h1 (a client out of reach): no other host that can take it is better",
        "c2 has 90.0 % of the traffic (9 B/s): no way from h1",
        "c1 has 10.0 % of the traffic (1 B/s): 2 hops from h1",
        "c3 does not count: no host has a way to it",
        "not h2 (a client out of reach): no way to c1",
    )
    busy = Situation(
        situation.vm,
        {"h1": replace(IDLE, cpu_percent=80.0), "h2": IDLE},
        islands,
        traffic,
    )
    spread = decide(busy, Policy.LOAD, Limits(), now_s=0.0)
    assert spread.verdict is Verdict.REFUSED, "c1 would be cut off"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(NotFoundError, match="nothing is known of h1, where vm1 runs; known: h2"):
        replace(campus(), hosts={"h2": IDLE})
    for wrong in (float("nan"), -1.0, float("inf")):
        with pytest.raises(ConfigError, match="the traffic of c1"):
            campus(c1=wrong)
    with pytest.raises(ConfigError, match="gain_hops must be above 0"):
        Limits(gain_hops=0.0)
    with pytest.raises(ConfigError, match="pause_s must not be negative"):
        Limits(pause_s=-1.0)
    with pytest.raises(ConfigError, match="0 to 100 %"):
        replace(IDLE, cpu_percent=101.0)
    with pytest.raises(ConfigError, match="a host cannot be so"):
        replace(IDLE, cpus=0)
    with pytest.raises(ConfigError, match="a VM cannot be so"):
        Vm("v", "h1", -1)
