"""Whether the VLANs of a VM leave its bridge, by real bridges; the kernel here may have no VLAN filtering of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

import pytest
from dataplane_kit import Host, ip, isolated
from ovs_kit import Ovs

from dom0 import bridge_vlans, bridges
from dom0.bridge_port import BridgePort

pytestmark = pytest.mark.root


def missing(bridge: str, vlans: Iterable[int]) -> list[int]:
    return asyncio.run(bridge_vlans.missing(bridge, vlans))


@isolated(60)
def test_open_vswitch() -> None:
    ovs = Ovs("s1")
    os.environ["OVS_RUNDIR"] = str(ovs.folder)
    with ovs.host:
        for name in ("up0", "up1", "other"):
            ip("link", "add", name, "type", "veth", "peer", "name", f"{name}.far")
        ip("tuntap", "add", "vnet0", "mode", "tap")
        ovs.vsctl("add-port", "s1", "vnet0", "tag=20")
        assert missing("s1", {20}) == [], "no uplink: the LAN is this host"
        ovs.vsctl("add-port", "s1", "up0", "trunks=10,30")
        assert missing("s1", {20}) == [20], "a VM's own port is none that carries it"
        assert missing("s1", {10, 30}) == [] and missing("s1", set()) == []
        ovs.vsctl("add-port", "s1", "up1", "tag=40")
        assert missing("s1", {10, 40, 50}) == [50]
        ovs.vsctl("set", "Port", "up1", "vlan_mode=native-untagged", "trunks=50")
        assert missing("s1", {40, 50, 60}) == [60]
        ovs.vsctl("add-port", "s1", "other")
        assert missing("s1", {20, 4094}) == [], "without tag and list it is a trunk of all"
        assert bridge_vlans.of_port(asyncio.run(bridges.place_of("vnet0", "s1"))) == {20}


@isolated(30)
def test_a_linux_bridge_that_filters_none_has_them_all() -> None:
    with Host():
        ip("link", "add", "br0", "type", "bridge")
        ip("link", "add", "up0", "type", "veth", "peer", "name", "far")
        ip("link", "set", "up0", "master", "br0")
        assert missing("br0", {20}) == []


@pytest.mark.parametrize(
    ("settings", "vlans"),
    [
        ((), set()),
        (("tag=20",), {20}),
        (("tag=20", "trunks=3"), {20}),
        (("tag=9", "trunks=3,4", "vlan_mode=native-untagged"), {3, 4, 9}),
        (("trunks=3,4",), {3, 4}),
        (("vlan=10/6", "vlan=20/0", "isolated=1"), {10, 20}),
        (("tag=0",), set()),
    ],
)
def test_vlans_of_a_port(settings: tuple[str, ...], vlans: set[int]) -> None:
    assert bridge_vlans.of_port(BridgePort("br0", settings)) == vlans
