"""Whether the VLANs of a VM leave a bridge: at a host whose uplink does not carry them a VM would run and be reached by nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute

from dom0 import bridges
from dom0.bridge_port import BridgePort, filters_vlans, vlans_of
from dom0.dataplane import netdev

EVERY: Final = frozenset(range(1, 4095))


def of_port(place: BridgePort) -> frozenset[int]:
    """VLANs that a VM's port is in, as far as that is said: a trunk without a list is in all of them, and none is named. Pure."""
    settings = dict(one.split("=", 1) for one in place.settings)
    if "vlan_mode" not in settings and "tag" in settings:
        settings.pop("trunks", None)  # an access port: Open vSwitch minds its tag alone
    named = {one for key in ("tag", "trunks") for one in settings.get(key, "").split(",") if one.isdigit()}
    named |= {one.removeprefix("vlan=").split("/")[0] for one in place.settings if one.startswith("vlan=")}
    return frozenset(map(int, named)) & EVERY


async def missing(bridge: str, wanted: Iterable[int]) -> list[int]:
    """Those that no port of ``bridge`` carries but VMs' taps. None if all its ports are taps: its LAN is this host alone.

    VmnetError or OSError if the bridge does not say.
    """
    wanted = frozenset(wanted)
    if not wanted:
        return []
    if bridges.is_linux_bridge(bridge):
        uplinks = await asyncio.to_thread(_of_linux_bridge, bridge)
    else:
        ports = (await bridges.ovs_vsctl("list-ports", bridge)).split()
        uplinks = await _of_ovs([one for one in ports if not netdev.is_tap(one)])
    return sorted(wanted.difference(*uplinks)) if uplinks else []


def _of_linux_bridge(bridge: str) -> list[frozenset[int]]:
    if not filters_vlans(bridge):
        return []
    ports = [one.name for one in Path(f"/sys/class/net/{bridge}/brif").iterdir()]
    with IPRoute() as netlink:
        return [
            frozenset(vlan for vlan, _how in vlans_of(netlink, netdev.index_of(one)))
            for one in ports
            if not netdev.is_tap(one)
        ]


async def _of_ovs(ports: list[str]) -> list[frozenset[int]]:
    if not ports:
        return []
    listed = await bridges.ovs_vsctl(
        "--format=json", "--if-exists", "--columns=tag,trunks,vlan_mode", "list", "Port", *ports
    )
    found = json.loads(listed)
    return [_carried(dict(zip(found["headings"], row, strict=True))) for row in found["data"]]


def _carried(port: Mapping[str, Any]) -> frozenset[int]:
    """VLANs of a row of Open vSwitch's table Port (ovs-vswitchd.conf.db(5), VLAN Configuration). Pure."""
    tags, trunks, mode = _set(port["tag"]), _set(port["trunks"]), port["vlan_mode"]
    if mode in ("access", "dot1q-tunnel") or (tags and not isinstance(mode, str)):
        return frozenset(tags)
    return frozenset(trunks | tags) if trunks else EVERY


def _set(value: Any) -> set[int]:
    """An OVSDB set, as JSON has it (RFC 7047, 5.1): one value alone stands for itself."""
    members = value[1] if isinstance(value, list) else [value]
    return {one for one in members if isinstance(one, int)}
