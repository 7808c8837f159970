"""OVN in the lab: what is said to the northbound database, which topologies make sense, what a migration tells the ports."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from vmnet.bench import ovn_migrate
from vmnet.errors import ConfigError
from vmnet.lab import ovn, schema
from vmnet.lab.domain import Boot, domain_xml
from vmnet.lab.image import Image
from vmnet.lab.ovn_ports import LogicalPort, logical_ports, vm_port, words
from vmnet.lab.topology import BridgeKind

KINDS: dict[str, BridgeKind] = {"br0": "ovs", "br-int": "ovn"}


def document() -> Any:
    return schema.load_document(schema.find("pair-ovn")[1])


def test_ports_are_the_vms_and_those_of_links() -> None:
    topology = schema.parse(document())
    port = vm_port("x", "vm1", 0)
    assert list(logical_ports("x", topology)) == [
        LogicalPort(port, "lan", "52:54:00:00:00:01 10.1.0.10 fd01::10", "a", True),
        LogicalPort("gateway-client", "lan", "52:54:00:00:01:00 10.1.0.100 fd01::100", "gateway", False),
    ]
    assert vm_port("y", "vm1", 0) != port != vm_port("x", "vm1", 1)
    roles = {name: ovn.roles(node) for name, node in topology.nodes.items()}
    assert roles["central"] == ["ovn-nb", "ovn-sb", "northd"]
    assert roles["a"] == roles["gateway"] == ["ovn-controller"]
    assert not roles["client"]


def test_whose_mac_address_is_drawn_at_random_is_unknown() -> None:
    changed = document()
    del changed["clients"]["client"]["macs"]
    assert [port.addresses for port in logical_ports("x", schema.parse(changed))][1] == "unknown"


def test_the_northbound_transaction() -> None:
    said = " ".join(words([LogicalPort("p", "lan", "52:54:00:00:00:01 10.1.0.10", "a", True)]))
    assert said == (
        "ls-add lan -- lsp-add lan p -- lsp-set-addresses p 52:54:00:00:00:01 10.1.0.10"
        " -- lsp-set-options p requested-chassis=a -- lsp-set-port-security p 52:54:00:00:00:01 10.1.0.10"
    )


def test_the_domain_names_its_port_and_the_migration_finds_it() -> None:
    boot = Boot("x", Image(Path("/k"), Path("/i")), "tcg", "pc-q35-7.2", Path("/log"))
    text = domain_xml(schema.parse(document()).vms["vm1"], boot, KINDS)
    assert ovn_migrate.ports(text) == [vm_port("x", "vm1", 0)]
    driver = ET.fromstring(text).find("devices/interface/driver/host")
    assert driver is not None
    assert driver.get("csum") == "off"
    elsewhere = domain_xml(schema.parse(document()).vms["vm1"], boot, {**KINDS, "br-int": "ovs"})
    assert ovn_migrate.ports(elsewhere) == []


def test_a_migration_tells_all_ports_in_one_transaction() -> None:
    both = " ".join(ovn_migrate.on_both(["p", "q"], "a", "b"))
    assert both.count('options:requested-chassis="a,b" options:activation-strategy=rarp') == 2
    assert not both.startswith("--")
    one = ovn_migrate.on_one(["p"], "b")
    assert one == [
        *("set", "Logical_Switch_Port", "p", "options:requested-chassis=b", "--"),
        *("remove", "Logical_Switch_Port", "p", "options", "activation-strategy"),
    ]


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (
            "clients.central.ovn_central",
            False,
            "hosts.a.bridges.br-int.kind is ovn, and no client has ovn_central",
        ),
        ("clients.client.ovn_central", True, "clients.central.ovn_central is a second one: client is it"),
        (
            "clients.central.addresses",
            {"eth0": ["fd00::1/64"]},
            "clients.central.addresses has no IPv4 address",
        ),
        ("clients.gateway.addresses", {}, "clients.gateway.addresses has no IPv4 address"),
        (
            "clients.gateway.bridges.br-int.ports",
            ["x"],
            "clients.gateway.bridges.br-int.ports[0] is the end of no link",
        ),
        ("hosts.a.bridges.br0.kind", "ovn", "hosts.a.bridges.br-int.kind is ovn, as br0 is"),
        ("hosts.a.ovn_central", True, "hosts.a.ovn_central is not known here"),
        ("switches.core", {"kind": "ovn"}, "switches.core.kind must be one of linux, ovs, is 'ovn'"),
    ],
)
def test_mistakes_are_named_by_their_path(path: str, value: Any, complaint: str) -> None:
    bad = document()
    *folders, last = path.split(".")
    inside = bad
    for key in folders:
        inside = inside[key]
    inside[last] = value
    with pytest.raises(ConfigError) as caught:
        schema.parse(bad)
    assert str(caught.value).startswith(f"topology: {complaint}")
