"""Names of the devices of one migrating interface: at most 15 bytes, recognisable as ours, the same on both hosts."""

from __future__ import annotations

from typing import Final

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


def is_ours(device: str) -> bool:
    """Whether a device's name is one that one of the functions above makes."""
    return (
        len(device) == 9 and device[:3] in PREFIXES and all(one in "0123456789abcdef" for one in device[3:])
    )
