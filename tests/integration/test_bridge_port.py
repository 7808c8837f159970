"""What takes a tap's place in a bridge is treated there as the tap's port was: VLANs, isolation and flags."""

from __future__ import annotations

import asyncio
import os

import pytest
from dataplane_kit import Host, ip, isolated
from ovs_kit import Ovs

from dom0 import bridges
from dom0.bridge_port import BridgePort, of_ovs, vlans

pytestmark = pytest.mark.root


@isolated(60)
def test_open_vswitch() -> None:
    ovs = Ovs("s1")
    os.environ["OVS_RUNDIR"] = str(ovs.folder)

    def port(name: str) -> BridgePort:
        return asyncio.run(bridges.place_of(name, "s1"))

    with ovs.host:
        for number in (0, 1):
            ip("link", "add", f"tap{number}", "type", "veth", "peer", "name", f"other{number}")
    ovs.vsctl("add-port", "s1", "tap0", "tag=7")
    ovs.vsctl(
        *("add-port", "s1", "tap1", "tag=9", "trunks=3,4", "vlan_mode=native-untagged"),
        *("--", "set", "Port", "tap1", "protected=true"),
    )
    with ovs.host:
        assert port("tap0") == BridgePort("s1", ("tag=7",))
        trunk = port("tap1")
        assert trunk.settings == ("tag=9", "trunks=3,4", "vlan_mode=native-untagged", "protected=true")
        assert port("other0") == BridgePort("s1"), "it is no port"
        asyncio.run(bridges.join("other0", BridgePort.parse(str(port("tap0")))))
        asyncio.run(bridges.add_port("other1", BridgePort.parse(str(trunk))))
        asyncio.run(bridges.add_port("other1", BridgePort("s1")))
        assert (port("other0").settings, port("other1").settings) == (("tag=7",), trunk.settings)


@isolated(30)
def test_linux_bridge() -> None:
    with Host():
        ip("link", "add", "br0", "type", "bridge")
        ip("link", "add", "tap0", "type", "veth", "peer", "name", "guest0")
        ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
        ip("link", "set", "tap0", "master", "br0")
        plain = asyncio.run(bridges.place_of("tap0", "br0"))
        assert plain == BridgePort("br0")
        ip(
            "link",
            "set",
            "tap0",
            "type",
            "bridge_slave",
            "isolated",
            "on",
            "neigh_suppress",
            "on",
            "hairpin",
            "on",
        )
        place = asyncio.run(bridges.place_of("tap0", "br0"))
        assert set(place.settings) == {"isolated=1", "neigh_suppress=1", "mode=1"}
        asyncio.run(bridges.join("other0", BridgePort.parse(str(place))))
        asyncio.run(bridges.add_port("other1", place))
        for name in ("other0", "other1"):
            assert asyncio.run(bridges.place_of(name, "br0")) == place


def test_vlans_of_a_linux_bridges_port() -> None:
    """As pyroute2 gives them: 10 is untagged there, 20 is tagged; ranges are given VLAN by VLAN."""
    information = [
        ("IFLA_BRIDGE_VLAN_INFO", {"vid": vid, "flags": flags}) for vid, flags in ((10, 6), (20, 0x10))
    ]
    assert vlans({"attrs": [*information, ("IFLA_BRIDGE_FLAGS", 1)]}) == [(10, 6), (20, 0)]


@pytest.mark.parametrize(
    ("printed", "settings"),
    [
        ("", ()),
        ("[]\n[]\n[]\nfalse\n[]\n", ()),
        ("7\n[]\n[]\nfalse\n[]\n", ("tag=7",)),
        ('[]\n[3, 4]\n"trunk"\ntrue\n[]\n', ("trunks=3,4", "vlan_mode=trunk", "protected=true")),
        ("7; x\n[]\n-- set\n", ()),
    ],
)
def test_what_ovs_vsctl_prints(printed: str, settings: tuple[str, ...]) -> None:
    place = of_ovs("s1", printed)
    assert place == BridgePort("s1", settings)
    assert BridgePort.parse(str(place)) == place


def test_a_written_place_is_not_believed_beyond_settings() -> None:
    assert BridgePort.parse("br0 tag=7 --  set x;y=1 tag=$(x) A=1") == BridgePort("br0", ("tag=7",))
