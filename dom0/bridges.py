"""Which bridge is what, and joining a device to one: Linux bridge by netlink, Open vSwitch by its own tool."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from pyroute2 import IPRoute

from dom0 import bridge_port
from dom0.bridge_port import BridgePort
from dom0.dataplane import netdev, rtnetlink
from dom0.ovs_addresses import SwitchAddresses, addresses, switch_ports, system_ports
from vmnet.errors import UnavailableError, WaitTimeoutError

_OVS_S = 5
_NEW_LINK, _IFLA_MASTER = 16, 10
_NEW_NEIGHBOUR, _LINK_ADDRESS, _BRIDGE = 28, 2, 7  # linux/rtnetlink.h, linux/neighbour.h, linux/socket.h
_REACHABLE, _STATIC = 0x02, 0x40
_MASTER, _STICKY = 0x04, 0x40


def is_linux_bridge(name: str) -> bool:
    return Path(f"/sys/class/net/{name}/bridge").is_dir()


async def ovs_vsctl(*words: str) -> str:
    """What it prints. UnavailableError, WaitTimeoutError."""
    return await _ovs("ovs-vsctl", *words)


async def ovs_appctl(*words: str) -> str:
    """What ovs-vswitchd answers. UnavailableError, WaitTimeoutError."""
    return await _ovs("ovs-appctl", *_to_vswitchd(), *words)


async def _ovs(program: str, *words: str) -> str:
    """Without a limit both programs wait for ever when vswitchd is dead, so they always get one."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--timeout={_OVS_S}",
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise UnavailableError(f"{program} is not installed here", "install openvswitch-switch") from None
    try:
        out, complaint = await asyncio.wait_for(process.communicate(), _OVS_S + 2)
    except TimeoutError:
        process.kill()
        raise WaitTimeoutError(f"{program} {words[0]} did not end within {_OVS_S} s") from None
    if process.returncode:
        raise UnavailableError(f"{program} {' '.join(words)}: {complaint.decode().strip().splitlines()[-1:]}")
    return out.decode()


def _to_vswitchd() -> tuple[str, ...]:
    """ovs-appctl finds the control socket by itself if ovs-vswitchd has been started without ``--unixctl``."""
    own = Path(os.environ.get("OVS_RUNDIR", "/run/openvswitch"), "ovs-vswitchd.ctl")
    return ("--target", str(own)) if own.exists() else ()


async def ovs_addresses(device: str) -> SwitchAddresses:
    """Who is behind which port of the Open vSwitch that ``device`` is in. VmnetError or ValueError if it does not say."""
    bridge = (await ovs_vsctl("iface-to-br", device)).strip()
    table = ("--format=json", "--columns")
    known, datapaths, ports, interfaces = await asyncio.gather(
        ovs_appctl("fdb/show", bridge),
        ovs_appctl("dpif/show"),
        ovs_vsctl(*table, "name,tag,vlan_mode,interfaces", "list", "Port"),
        ovs_vsctl(*table, "_uuid,name", "list", "Interface"),
    )
    devices = system_ports(datapaths, bridge)
    return SwitchAddresses(
        devices,
        switch_ports(ports, interfaces),
        addresses(known),
        frozenset(one for one in devices.values() if netdev.is_tap(one)),
    )


async def exists(name: str) -> bool:
    """Whether ``name`` is a bridge of either kind on this host."""
    if is_linux_bridge(name):
        return True
    try:
        await ovs_vsctl("br-exists", name)
    except UnavailableError:
        return False
    return True


async def is_ovs(name: str) -> bool:
    return not is_linux_bridge(name) and await exists(name)


async def which_are_ovs(names: Iterable[str]) -> dict[str, bool]:
    return {name: await is_ovs(name) for name in set(names)}


async def place_of(port: str, bridge: str) -> BridgePort:
    """How ``bridge`` treats its ``port``; without settings if it is none of its. VmnetError or OSError if the bridge does not say."""
    if is_linux_bridge(bridge):
        return await bridge_port.read_linux(port, bridge)
    return bridge_port.of_ovs(bridge, await ovs_vsctl(*bridge_port.ovs_question(port)))


async def join(device: str, place: BridgePort, learns: bool = True) -> None:
    """``device`` becomes a port of that bridge; a Linux bridge floods only broadcast and multicast there, and those not yet.

    ``learns`` False: nor does it learn there before; what is for the guest goes by the old port, behind what that one holds.
    """
    if is_linux_bridge(place.bridge):
        await asyncio.to_thread(_join_linux, device, place, learns)
    else:
        await _add_ovs_port(device, place)


async def _add_ovs_port(device: str, place: BridgePort) -> None:
    """In one transaction: a port without its tag would be in all VLANs for a moment."""
    await ovs_vsctl("--may-exist", "add-port", place.bridge, device, *bridge_port.ovs_change(device, place))


def _join_linux(device: str, place: BridgePort, learns: bool) -> None:
    index, master = netdev.index_of(device), netdev.index_of(place.bridge)
    with IPRoute() as netlink:
        netlink.link("set", index=index, master=master)
        bridge_port.apply_linux(netlink, device, place)
        _flood(netlink, index, False, learns)


async def add_port(device: str, place: BridgePort) -> None:
    """``device`` becomes an ordinary port of that bridge. Only its settings change if it is."""
    if is_linux_bridge(place.bridge):
        await asyncio.to_thread(_add_linux_port, device, place)
    else:
        await _add_ovs_port(device, place)


def _add_linux_port(device: str, place: BridgePort) -> None:
    _set_master(device, netdev.index_of(place.bridge))
    if place.settings:
        with IPRoute() as netlink:
            bridge_port.apply_linux(netlink, device, place)


async def take_off(device: str, bridge: str) -> None:
    """``device`` is a port no more; it stays. Nothing happens if it was none."""
    if is_linux_bridge(bridge):
        await asyncio.to_thread(_set_master, device, 0)
    else:
        await ovs_vsctl("--if-exists", "del-port", bridge, device)


def _set_master(device: str, master: int) -> None:
    body = rtnetlink.link_message(netdev.index_of(device)) + rtnetlink.u32(_IFLA_MASTER, master)
    rtnetlink.request(_NEW_LINK, 0, body)


def flood(device: str, on: bool) -> None:
    """Whether a Linux bridge floods broadcast and multicast out of this port, and learns there. Nothing happens for other ports."""
    if not netdev.is_linux_bridge_port(device):
        return
    with IPRoute() as netlink:
        _flood(netlink, netdev.index_of(device), on, True)


def _flood(netlink: IPRoute, index: int, on: bool, learns: bool) -> None:
    netlink.brport(
        "set",
        index=index,
        unicast_flood=0,
        multicast_flood=int(on),
        broadcast_flood=int(on),
        learning=int(learns),
    )


def pin(device: str, mac: str, on: bool = True) -> None:
    """A Linux bridge sends what is for ``mac`` to this port, even if it hears that address at another one; in all of the port's VLANs.

    The entry goes with the port. ``on`` False: it learns again. Nothing happens for other ports. OSError if the kernel refuses.
    """
    if not netdev.is_linux_bridge_port(device):
        return
    state, flags = (_STATIC, _MASTER | _STICKY) if on else (_REACHABLE, _MASTER)
    head = struct.pack("=BxxxiHBx", _BRIDGE, netdev.index_of(device), state, flags)
    address = rtnetlink.attribute(_LINK_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    rtnetlink.request(_NEW_NEIGHBOUR, rtnetlink.CREATE | rtnetlink.REPLACE, head + address)


async def leave(device: str, bridge: str) -> None:
    if is_linux_bridge(bridge):
        return  # a deleted device leaves by itself
    await ovs_vsctl("--if-exists", "del-port", bridge, device)
