"""Reading topologies: what is built in is valid, and a mistake is named by its path."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import pytest
import yaml

from controller_bridge import fabric
from vmnet.errors import ConfigError
from vmnet.lab import controller, fabric_files, places, schema
from vmnet.lab.topology import LINK_MTU, Link, OpenFlow, Topology

GOOD = """
hosts:
  a: {addresses: {br0: [10.0.0.1/24, "fd00::1/64"]}, bridges: {br0: {ports: [up0]}}}
clients:
  c: {addresses: {eth0: [10.0.0.100/24]}}
switches: {core: {}}
links:
  - {ends: ["a:up0", "core:a"]}
  - {ends: ["c:eth0", "core:c"], mtu: 1500}
vms:
  vm1: {host: a, interfaces: [{addresses: [10.0.0.10/24]}]}
"""


FABRIC = """
clients:
  c1: {addresses: {eth0: [10.0.0.1/24]}}
  c2: {addresses: {eth0: [10.0.0.2/24]}}
  ctl: {addresses: {eth0: [10.9.0.100/24]}}
switches:
  s1:
    kind: ovs
    addresses: {mgmt: [10.9.0.1/24]}
    openflow: {listen: 6653, controller: "tcp:10.9.0.100:6653"}
    access: [room1, room2]
  s2: {kind: ovs, openflow: {}, access: [room1]}
links:
  - {ends: ["s1:s2", "s2:s1"]}
  - {ends: ["c1:eth0", "s1:room1"]}
  - {ends: ["c2:eth0", "s2:room1"]}
  - {ends: ["ctl:eth0", "s1:mgmt"]}
"""


def document(text: str = GOOD) -> Any:
    return yaml.safe_load(text)


def test_built_in_topologies_are_valid() -> None:
    assert {"pair", "pair-ovs", "routed"} <= set(schema.built_in_names())
    for name in schema.built_in_names():
        topology = schema.parse(schema.load_document(schema.find(name)[1]))
        assert topology.nodes
        assert bool(topology.hosts) == bool(topology.vms)


def test_defaults() -> None:
    topology = schema.parse(document())
    host, vm = topology.nodes["a"], topology.vms["vm1"]
    assert (host.daemon, host.hooks, host.underlay) == (True, True, "10.0.0.1")
    assert (host.bridges[0].kind, host.bridges[0].segment) == ("linux", "lan")
    assert [link.mtu for link in topology.links] == [LINK_MTU, 1500]
    assert (vm.memory, vm.image, vm.interfaces[0].bridge, vm.interfaces[0].mtu) == (128, "small", "br0", 1500)
    assert vm.interfaces[0].mac.startswith("52:54:00:")
    assert topology.nodes["core"].bridges[0].ports == ("a", "c")


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("extra", {}, "extra is not known here"),
        ("hosts.a.colour", "red", "hosts.a.colour is not known here"),
        ("hosts.a.daemon", "yes", "hosts.a.daemon must be true or false"),
        (
            "hosts.a.addresses.br0",
            ["10.0.0.1"],
            "hosts.a.addresses.br0[0] must be an address with a prefix length",
        ),
        ("hosts.a.addresses.br0", ["fd00::1/64"], "hosts.a.addresses has no IPv4 address"),
        ("hosts.a.addresses.eth7", ["10.1.0.1/24"], "hosts.a.addresses names no port or bridge: 'eth7'"),
        ("hosts.a.bridges.br0.kind", "token-ring", "hosts.a.bridges.br0.kind must be one of linux, ovs, ovn"),
        ("hosts.a.bridges.br0.ports", ["up1"], "hosts.a.bridges.br0.ports[0] is the end of no link: 'up1'"),
        ("hosts.a-b", {}, "the name of hosts.a-b must match"),
        ("clients.a", {}, "clients.a is the second node of that name"),
        ("clients.c.gateways", ["nowhere"], "clients.c.gateways[0] must be an address"),
        ("links", [{"ends": ["a:up0"]}], "links[0].ends must be two ends"),
        ("links", [{"ends": ["a:up0", "zz:x"]}], "links[0].ends[1] names no node: 'zz'"),
        ("links", [{"ends": ["a:up0", "a:up0"]}], "links[0].ends[1] is used twice: a:up0"),
        (
            "links",
            [{"ends": ["a:up0", "core:a"], "mtu": 12}],
            "links[0].mtu must be a whole number from 1280",
        ),
        ("links", "none", "links must be a list"),
        ("vms.vm1.host", "c", "vms.vm1.host names no host: 'c'"),
        ("vms.vm1.memory", True, "vms.vm1.memory must be a whole number"),
        ("vms.vm1.interfaces", [{"bridge": "br9"}], "vms.vm1.interfaces[0].bridge is no bridge of a: 'br9'"),
        (
            "vms.vm1.interfaces",
            [{"mac": "01:00:00:00:00:01"}],
            "vms.vm1.interfaces[0].mac must be a unicast MAC",
        ),
    ],
)
def test_mistakes_are_named_by_their_path(path: str, value: Any, complaint: str) -> None:
    refused(document(), path, value, complaint)


def refused(bad: Any, path: str, value: Any, complaint: str) -> None:
    *folders, last = path.split(".")
    inside = bad
    for key in folders:
        inside = inside[key]
    inside[last] = value
    with pytest.raises(ConfigError) as caught:
        schema.parse(bad)
    assert str(caught.value).startswith(f"topology: {complaint}")
    assert "\n" not in str(caught.value)


def test_a_switch_that_a_controller_steers() -> None:
    topology = schema.parse(document(FABRIC))
    s1, s2 = topology.nodes["s1"], topology.nodes["s2"]
    assert (s1.bridges[0].secure, s1.bridges[0].openflow) == (True, OpenFlow(6653, "tcp:10.9.0.100:6653"))
    assert (s2.bridges[0].secure, s2.bridges[0].openflow) == (True, OpenFlow(0, ""))
    assert s1.bridges[0].ports == ("s2", "room1"), "a port with an address is none of the bridge's"
    assert s1.bridges[0].numbers == {"s2": 1, "room1": 2, "room2": 3}
    assert s1.underlay == "10.9.0.1"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("switches.s1.kind", "linux", "switches.s1.openflow needs kind: ovs"),
        ("switches.s1.kind", "token-ring", "switches.s1.kind must be one of linux, ovs"),
        ("switches.s1.openflow", {"port": 1}, "switches.s1.openflow.port is not known here"),
        ("switches.s1.openflow", {"listen": 0}, "switches.s1.openflow.listen must be a whole number from 1"),
        (
            "switches.s1.openflow",
            {"controller": "10.9.0.100"},
            "switches.s1.openflow.controller must be tcp:",
        ),
        (
            "switches.s2.openflow",
            {"listen": 6653},
            "switches.s2.openflow.listen needs a port with an address",
        ),
        ("switches.s1.addresses", {"mgmt": ["fd00::1/64"]}, "switches.s1.addresses.mgmt[0] must be IPv4"),
        (
            "switches.s1.addresses",
            {"eth7": ["10.9.0.1/24"]},
            "switches.s1.addresses names no port or bridge: 'eth7'",
        ),
        (
            "switches.s1.addresses",
            {"switch": ["10.9.0.1/24"]},
            "switches.s1.addresses names no port or bridge: 'switch'",
        ),
        ("switches.s1.access", ["a b"], "switches.s1.access[0] must match"),
        ("switches.s1.access", ["x", "x"], "switches.s1.access[1] is named twice: 'x'"),
        ("switches.s1.access", ["mgmt"], "switches.s1.access[0] is no port of the bridge: 'mgmt'"),
        ("switches.s1.access", ["s2"], "switches.s1.access[0] has a link to s2, which is no client"),
        ("clients.c1.access", ["x"], "clients.c1.access is not known here"),
        ("clients.c1.controller", "yes", "clients.c1.controller must be a mapping"),
        (
            "switches.s1.openflow",
            {"controller": "tcp:10.9.0.999:6653"},
            "switches.s1.openflow.controller must be an address",
        ),
    ],
)
def test_mistakes_in_a_switch_are_named_by_their_path(path: str, value: Any, complaint: str) -> None:
    refused(document(FABRIC), path, value, complaint)


def test_campus_is_redundant_and_has_room_to_walk() -> None:
    topology = schema.parse(schema.load_document(schema.find("campus")[1]))
    fabric = {
        name: node for name, node in topology.nodes.items() if node.bridges and node.bridges[0].openflow
    }
    assert len(fabric) >= 6
    for broken in [link for link in topology.links if {end.node for end in link.ends} <= fabric.keys()]:
        assert reached(topology, fabric.keys(), broken) == fabric.keys(), f"{broken} is the only way"
    assert len(topology.hosts) == 4
    for host in topology.hosts:
        assert any(bridge.segment == "campus" and bridge.ports for bridge in host.bridges)
        assert host.underlay.startswith("10.0.0."), "migrations do not need the fabric"
    assert {one.client.node for one in places.mobile(topology)} == {"c1", "c2", "c3"}


def reached(topology: Topology, among: Collection[str], without: Link) -> set[str]:
    pairs = [[end.node for end in link.ends] for link in topology.links if link != without]
    found = {min(among)}
    while more := {b for a, b in pairs if a in found} | {a for a, b in pairs if b in found}:
        if not (more & set(among)) - found:
            return found
        found |= more & set(among)
    return found


@pytest.mark.parametrize("value", [None, [], "text", 7])
def test_other_documents_do_not_crash(value: Any) -> None:
    if value is None:
        assert schema.parse(value).nodes == {}
    else:
        with pytest.raises(ConfigError, match="the file must be a mapping"):
            schema.parse(value)


def test_a_controller_knows_its_switches_by_their_names() -> None:
    bad = document(FABRIC)
    bad["clients"]["ctl"]["controller"] = {"gateways": ["10.0.0.254"], "outside": ["s1:room1"]}
    topology = schema.parse(bad)
    controller.check(topology)
    datapath = {"s1": topology.nodes["s1"].bridges[0].datapath}
    assert fabric_files.controller(topology, topology.nodes["ctl"]) == {
        "listen": ["tcp:10.9.0.100:6653"],
        "plain": True,
        "outside": ["s1:room1"],
        "switches": datapath,
        "gateways": ["10.0.0.254"],
    }
    bad["clients"]["ctl"]["controller"] = {}
    again = schema.parse(bad)
    derived = fabric_files.controller(again, again.nodes["ctl"])
    assert derived["outside"] == ["s1:room1", "s1:room2"], "where clients are, and where they can come"
    for wrong, complaint in (({"colour": "red"}, "unknown setting 'colour'"), ({"key": None}, "TOML has no")):
        bad["clients"]["ctl"]["controller"] = wrong
        with pytest.raises(ConfigError, match=f"topology: clients.ctl.controller: {complaint}"):
            controller.check(schema.parse(bad))


def test_hosts_ask_the_controller_of_the_fabric_that_they_hang_on() -> None:
    campus = schema.parse(schema.load_document(schema.find("campus")[1]))
    told = fabric_files.controller(campus, campus.nodes["controller"])
    assert told["hosts"] == {"h1": "s2:h1", "h2": "s3:h2", "h3": "s5:h3", "h4": "s6:h4"}
    assert told["api"] == {"listen": ["tcp:10.0.0.100:6654"], "plain": True}
    settings = {"controller": "tcp:10.0.0.100:6654", "host": "h3"}
    assert fabric_files.rerouter(campus, campus.nodes["h3"]) == {"kind": "vmnet", "settings": settings}
    written = fabric.parse(fabric_files.fabric(campus))
    assert (len(written.switches), len(written.links), str(written.hosts["h4"])) == (6, 8, "s6:h4")
    pair = schema.parse(schema.load_document(schema.find("pair")[1]))
    assert not fabric_files.rerouter(pair, pair.nodes["a"]) and not fabric_files.fabric(pair)


def test_without_daemons_there_is_no_controller() -> None:
    with_one = schema.load_document(schema.find("campus")[1])
    assert schema.parse(with_one).nodes["controller"].controller is not None
    without = schema.with_defaults(with_one, daemon=False)
    assert schema.parse(without).nodes["controller"].controller is None
    assert with_one["clients"]["controller"]["controller"], "what was read is left as it is"


def test_switching_hooks_and_daemon() -> None:
    before = document()
    changed = schema.with_defaults(copy.deepcopy(before), hooks=False, daemon=False)
    host = schema.parse(changed).nodes["a"]
    assert (host.hooks, host.daemon) == (False, False)
    assert schema.with_defaults(before) is before


def test_memory_for_every_vm() -> None:
    pair = schema.load_document(schema.find("pair")[1])
    changed = schema.parse(schema.with_defaults(pair, memory_mib=2048))
    assert {vm.memory for vm in changed.vms.values()} == {2048}
    assert {vm.memory for vm in schema.parse(pair).vms.values()} == {128}, "what was read is left as it is"


def test_unknown_topology_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="pair-ovs"):
        schema.find("no-such-topology")
