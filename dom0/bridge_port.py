"""How a bridge treats one of its ports. What takes a tap's place is to be treated alike: else its VM comes out in another VLAN.

Open vSwitch: the columns of its table Port (ovs-vswitchd.conf.db(5)). Linux bridge: its port's flags and VLANs (linux/if_link.h,
linux/if_bridge.h).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from dom0.dataplane import netdev

_OVS_COLUMNS: Final = ("tag", "trunks", "vlan_mode", "protected", "cvlans")
_OVS_VALUE = re.compile(r"\d+(,\d+)*\Z|[a-z][a-z0-9-]*\Z")
_UNSET: Final = frozenset(("[]", "{}", "", "false"))
_FLAGS: Final = {
    "isolated": "IFLA_BRPORT_ISOLATED",
    "neigh_suppress": "IFLA_BRPORT_NEIGH_SUPPRESS",
    "mode": "IFLA_BRPORT_MODE",
    "mcast_to_ucast": "IFLA_BRPORT_MCAST_TO_UCAST",
}
"""``mode`` is hairpin."""
_VLAN: Final = "vlan"
UNTAGGED_INTO: Final = 0x2
"""BRIDGE_VLAN_INFO_PVID: frames without a tag belong there."""
_KEPT_VLAN_FLAGS: Final = UNTAGGED_INTO | 0x4
"""And BRIDGE_VLAN_INFO_UNTAGGED."""
_SETTING = re.compile(r"[a-z_]+=[0-9a-z,/-]+\Z")


@dataclass(frozen=True)
class BridgePort:
    """``settings``: each ``KEY=VALUE``. As text: the bridge and its settings, in words with spaces between."""

    bridge: str
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.bridge, *self.settings))

    @classmethod
    def parse(cls, text: str) -> BridgePort:
        """Of what ``str`` has made; what is no setting is left out."""
        bridge, *settings = text.split(" ")
        return cls(bridge, tuple(one for one in settings if _SETTING.match(one)))


def of_ovs(bridge: str, printed: str) -> BridgePort:
    """``printed``: by ``ovs-vsctl get Port NAME`` of :data:`_OVS_COLUMNS`, a line each. Pure."""
    settings = []
    for column, line in zip(_OVS_COLUMNS, printed.splitlines(), strict=False):
        value = line.strip().strip('"[]').replace(" ", "")
        if line.strip() not in _UNSET and _OVS_VALUE.match(value):
            settings.append(f"{column}={value}")
    return BridgePort(bridge, tuple(settings))


def ovs_question(port: str) -> tuple[str, ...]:
    """Words for ``ovs-vsctl``; it prints nothing if there is no such port."""
    return ("--if-exists", "get", "Port", port, *_OVS_COLUMNS)


def ovs_change(port: str, place: BridgePort) -> tuple[str, ...]:
    """Words for ``ovs-vsctl``, to follow those that make the port."""
    return ("--", "set", "Port", port, *place.settings) if place.settings else ()


async def read_linux(port: str, bridge: str) -> BridgePort:
    """Of a port of a Linux bridge. OSError if the kernel refuses."""
    if not netdev.is_linux_bridge_port(port):
        return BridgePort(bridge)
    return await asyncio.to_thread(_read_linux, port, bridge)


def _read_linux(port: str, bridge: str) -> BridgePort:
    index = netdev.index_of(port)
    with _refusals(), IPRoute() as netlink:
        (link,) = netlink.get_links(index)
        here = vlans_of(netlink, index) if filters_vlans(bridge) else []
    data = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")
    flags = [f"{key}=1" for key, attribute in _FLAGS.items() if data and data.get_attr(attribute)]
    return BridgePort(bridge, (*flags, *(f"{_VLAN}={vlan}/{how}" for vlan, how in here)))


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What the kernel refuses is an OSError, as everywhere else."""
    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, str(error)) from error


def filters_vlans(bridge: str) -> bool:
    try:
        return Path(f"/sys/class/net/{bridge}/bridge/vlan_filtering").read_text().strip() == "1"
    except OSError:
        return False


def vlans_of(netlink: IPRoute, index: int) -> list[tuple[int, int]]:
    """As :func:`vlans` has them, of the port with that index; none if it is no port."""
    ports = [link for link in netlink.get_vlans(index=index) if link["index"] == index]
    return vlans(ports[0].get_nested("IFLA_AF_SPEC") or {}) if ports else []


def vlans(spec: Any) -> list[tuple[int, int]]:
    """Each VLAN of a port, and whether it is the untagged one: the flags. ``spec``: IFLA_AF_SPEC, as pyroute2 has it. Pure."""
    return [
        (int(info["vid"]), int(info["flags"]) & _KEPT_VLAN_FLAGS)
        for kind, info in spec.get("attrs", ())
        if kind == "IFLA_BRIDGE_VLAN_INFO"
    ]


def apply_linux(netlink: IPRoute, port: str, place: BridgePort) -> None:
    """To a port of a Linux bridge. Repeatable. OSError if the kernel refuses."""
    with _refusals():
        _apply_linux(netlink, netdev.index_of(port), place)


def _apply_linux(netlink: IPRoute, index: int, place: BridgePort) -> None:
    pairs = [one.partition("=")[::2] for one in place.settings]
    if flags := {key: int(value) for key, value in pairs if key in _FLAGS}:
        netlink.brport("set", index=index, **flags)
    given = [value.partition("/") for key, value in pairs if key == _VLAN]
    wanted = {int(vlan): int(how) for vlan, _, how in given}
    if not wanted:
        return
    for vlan, _how in vlans_of(netlink, index):
        if vlan not in wanted:
            netlink.vlan_filter("del", index=index, vlan_info={"vid": vlan})
    for vlan, how in wanted.items():
        netlink.vlan_filter("add", index=index, vlan_info={"vid": vlan, "flags": how})
