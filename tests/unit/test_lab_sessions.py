"""FRR in the lab: reading its key, the routes it announces, and judging what it says about its sessions."""

from __future__ import annotations

import copy
import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from vmnet.errors import ConfigError
from vmnet.lab import announce, image, schema, sessions, wiring
from vmnet.lab.domain import kernel_arguments
from vmnet.lab.sessions import Expected

BASE = """
clients:
  c:
    addresses: {eth0: [10.0.0.100/24], lo: [192.0.2.1/32]}
    frr: {daemons: [bgpd, zebra], config: "hostname c", announce: {ipv4: 5}}
switches: {s: {kind: ovs, flows: ["actions=drop"]}}
links: [{ends: ["c:eth0", "s:c"]}]
"""

# answers of FRR 8.4, shortened
UP: dict[str, Any] = {
    sessions.BGP: {"ipv4Unicast": {"peers": {"10.1.0.1": {"state": "Established"}}}},
    sessions.OSPF: {
        "interfaces": {
            "eth0": {"networkType": "POINTOPOINT", "nbrAdjacentCount": 1},
            "lo": {"networkType": "LOOPBACK", "nbrAdjacentCount": 0},
        }
    },
    sessions.BFD: [{"peer": "10.1.0.1", "status": "up"}],
    sessions.IPV4: {"routes": [{"type": "connected", "fib": 2}, {"type": "ebgp", "fib": 10, "rib": 10}]},
    sessions.IPV6: {"routes": [{"type": "ebgp", "fib": 3, "rib": 4}]},
    sessions.OSPF_ROUTES: {"192.0.2.2/32": [{"protocol": "ospf", "installed": True}]},
}
EXPECTED = Expected(10, 3, ("192.0.2.2/32",))


def test_frr_key() -> None:
    topology = schema.parse(yaml.safe_load(BASE))
    frr = topology.nodes["c"].frr
    assert frr is not None
    assert (frr.daemons, frr.config) == (("zebra", "bgpd"), "hostname c")
    assert (frr.announce_ipv4, frr.announce_ipv6) == (5, 0)
    assert topology.nodes["s"].bridges[0].flows == ("actions=drop",)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("clients.c.frr.daemon", [], "clients.c.frr.daemon is not known here"),
        ("clients.c.frr.daemons", ["bgpd"], "clients.c.frr.daemons must hold zebra"),
        ("clients.c.frr.daemons", ["zebra", "ripd"], "clients.c.frr.daemons[1] must be one of zebra, "),
        ("clients.c.frr.config", ["x"], "clients.c.frr.config must match"),
        ("clients.c.frr.announce.ipv4", -1, "clients.c.frr.announce.ipv4 must be a whole number from 0"),
        ("clients.c.frr.announce.ipv5", 1, "clients.c.frr.announce.ipv5 is not known here"),
        ("clients.c.addresses.lo1", [], "clients.c.addresses names no port or bridge: 'lo1'"),
        ("switches.s.kind", "linux", "switches.s.flows needs kind: ovs"),
        ("switches.s.flows", "drop", "switches.s.flows must be a list"),
        ("switches.s.frr", {}, "switches.s.frr is not known here"),
    ],
)
def test_a_mistake_is_named_by_its_path(path: str, value: object, complaint: str) -> None:
    broken = yaml.safe_load(BASE)
    *parents, last = path.split(".")
    place = broken
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(ConfigError) as caught:
        schema.parse(broken)
    assert complaint in caught.value.message


def test_announced_routes_are_distinct_and_stay_in_their_block() -> None:
    last = announce.MAX_ROUTES - 1
    assert announce.ipv4_prefix(0) == "100.64.0.0/28"
    assert announce.ipv6_prefix(1) == "2001:db8:0:1::/64"
    assert ip_network(announce.ipv4_prefix(last)).subnet_of(ip_network("100.64.0.0/10"))  # type: ignore[arg-type]
    assert ip_network(announce.ipv6_prefix(last)).subnet_of(ip_network("2001:db8::/32"))  # type: ignore[arg-type]
    lines = announce.ipv4_lines(1000) + announce.ipv6_lines(1000)
    assert len(set(lines)) == 2000
    assert lines[0] == "route add blackhole 100.64.0.0/28 proto static"


def test_nothing_is_missing_when_all_is_up() -> None:
    assert sessions.missing(UP, EXPECTED) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({sessions.BGP: {}}, "BGP has no neighbours"),
        ({sessions.BGP: {"ipv4Unicast": {"peers": {"p": {"state": "Idle"}}}}}, "BGP p is Idle"),
        (
            {sessions.OSPF: {"interfaces": {"eth1": {"networkType": "BROADCAST"}}}},
            "OSPF has no full neighbour on eth1",
        ),
        ({sessions.BFD: [{"peer": "p", "status": "down"}]}, "BFD p is down"),
        ({sessions.IPV4: {"routes": []}}, "0 of 10 routes (ip) by BGP"),
        ({sessions.IPV6: {}}, "0 of 3 routes (ipv6) by BGP"),
        ({sessions.OSPF_ROUTES: {}}, "no route to 192.0.2.2/32 by OSPF"),
        ({sessions.OSPF_ROUTES: {"192.0.2.2/32": [{}]}}, "no route to 192.0.2.2/32 by OSPF"),
    ],
)
def test_what_is_missing_is_named(change: dict[str, Any], complaint: str) -> None:
    assert sessions.missing({**copy.deepcopy(UP), **change}, EXPECTED) == [complaint]


def test_answers_one_after_the_other() -> None:
    text = "\n".join(json.dumps(UP[command], indent=2) for command in sessions.VIEWS) + "\n"
    assert sessions.parse(text) == UP
    for broken in ("", text[:-5], text.replace("{", "%", 1)):
        with pytest.raises(ValueError, match=r"."):
            sessions.parse(broken)


def test_pisa() -> None:
    topology = schema.parse(schema.load_document(schema.find("pisa")[1]))
    assert [host.underlay for host in topology.hosts] == ["10.0.0.1", "10.0.0.2"]
    assert "vmnet.agent=169.254.42.1:2621" in kernel_arguments(topology.vms["vr1"])
    names = wiring.hosts_file(topology.nodes.values())
    # every host has it, and a name must not lead to it
    assert "169.254" not in names
    assert "10.0.0.1 a\n" in names


def test_the_far_lan_of_multihop_is_bound() -> None:
    topology = schema.parse(schema.load_document(schema.find("multihop")[1]))
    far = topology.nodes["h6"]
    bridges = {bridge.name: bridge.segment for bridge in far.bridges}
    assert "left" not in bridges
    assert bridges[far.config["binding"]["left"]] == "far"


def test_every_program_of_the_guest_is_in_the_router_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "_SOURCES", tmp_path)
    for name in ("init", "answer", "responder.c"):
        (tmp_path / name).write_text(name)
    small, router = image._content_hash("small"), image._content_hash("router")
    (tmp_path / "agent.c").write_text("int main(void) { return 0; }")
    assert image._content_hash("small") == small
    assert image._content_hash("router") != router
    assert [file.stem for file in image._programs("router")] == ["agent", "responder"]
