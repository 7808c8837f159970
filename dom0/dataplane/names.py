"""Names and MAC addresses of the devices of one migrating interface: at most 15 bytes, recognisable as ours, the same on both hosts.

A bridge takes the lowest of its ports' MAC addresses for its own, unless it has been given one. If that changed, the host's own
connections by the bridge would be cut off. So devices of ours have high ones, as libvirt's taps have (``virnetdevtap.c``).
"""

from __future__ import annotations

import secrets
from typing import Final

_HIGH: Final = bytes.fromhex("fe766d")
TUNNEL_MAC: Final = _HIGH + bytes.fromhex("000001")
"""Of every tunnel's device, at both ends. What a program of the host sends by it (a DHCP client, an LLDP daemon) comes from this
address, and the other end's device drops it (``vxlan_set_mac``, drivers/net/vxlan): it is not counted among the guest's frames."""

PREFIXES: Final = ("vmt", "vmp", "vmq", "vmo", "vmf")


def tunnel_name(vni: int) -> str:
    return f"vmt{vni:06x}"


def park_name(vni: int) -> str:
    return f"vmp{vni:06x}"


def stand_in_name(vni: int) -> str:
    return f"vmq{vni:06x}"


def outgoing_park_name(vni: int) -> str:
    return f"vmo{vni:06x}"


def setup_port_name(vni: int) -> str:
    return f"vmf{vni:06x}"


def port_mac() -> bytes:
    """For a device that may become a port of a bridge; another one each time."""
    return _HIGH + b"\x01" + secrets.token_bytes(2)


def is_ours(device: str) -> bool:
    """Whether a device's name is one that one of the functions above makes."""
    return (
        len(device) == 9 and device[:3] in PREFIXES and all(one in "0123456789abcdef" for one in device[3:])
    )
