"""A router's interfaces, as reported to whoever makes the same ones here. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dom0.claim import mac_bytes
from dom0.fib.message import (
    DELLINK,
    NEWLINK,
    U32,
    MalformedError,
    RefusedMessageError,
    attribute,
    attributes,
    body_of,
    message,
    shown,
)

_IFINFOMSG = struct.Struct("=BxHiII")
_ADDRESS, _NAME, _MTU, _MASTER, _INFO, _XDP = 1, 3, 4, 10, 18, 43
_INFO_KIND, _XDP_ATTACHED = 1, 2
_UP, _LOOPBACK = 0x1, 0x8
_LONGEST_KIND = 15


@dataclass(frozen=True, slots=True)
class VmLink:
    """An interface in the router. ``mac``: empty if it has none; ``mtu`` in bytes; ``up``: as configured; ``gone``: it is no more.

    ``kind``: of a device that is made by software ("vlan", "vrf"), empty for a NIC; ``hardware``: ARPHRD_*; ``master``: index of the
    bridge, bond or VRF that it is a port of, 0 if none; ``xdp``: an XDP program is attached.
    """

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    gone: bool = False
    kind: str = ""
    hardware: int = 1
    master: int = 0
    xdp: bool = False
    loopback: bool = False


def parse(data: bytes) -> VmLink:
    """Raises MalformedError; RefusedMessageError for what is not about a link as such (a bridge tells of its ports alike)."""
    body_of(data, _IFINFOMSG.size)
    family, hardware, index, flags, _change = _IFINFOMSG.unpack_from(data, 16)
    if family:
        raise RefusedMessageError(f"link of family {family}")
    found = {
        kind: value
        for kind, value in attributes(data, 16 + _IFINFOMSG.size)
        if kind in (_ADDRESS, _NAME, _MTU, _MASTER, _INFO, _XDP)
    }
    name = found.get(_NAME, b"").rstrip(b"\0")
    if index <= 0 or not 0 < len(name) < 16 or not name.isascii() or not name.decode().isprintable():
        raise MalformedError("an interface without a usable index or name")
    if {len(found.get(one, bytes(4))) for one in (_MTU, _MASTER)} != {4} or len(
        found.get(_ADDRESS, b"")
    ) > 32:
        raise MalformedError("an interface with an MTU, a master or an address of a strange size")
    return VmLink(
        index,
        name.decode(),
        found.get(_ADDRESS, b"").hex(":"),
        mtu=U32.unpack(found.get(_MTU, bytes(4)))[0],
        up=bool(flags & _UP),
        gone=U32.unpack_from(data, 4)[0] & 0xFFFF == DELLINK,
        kind=shown(dict(attributes(found.get(_INFO, b""), 0)).get(_INFO_KIND, b""), _LONGEST_KIND),
        hardware=hardware,
        master=U32.unpack(found.get(_MASTER, bytes(4)))[0],
        xdp=any(dict(attributes(found.get(_XDP, b""), 0)).get(_XDP_ATTACHED, b"")),
        loopback=bool(flags & _LOOPBACK),
    )


def to_message(link: VmLink) -> bytes:
    """What :func:`parse` makes the same of, and nothing else."""
    flags = _UP * link.up | _LOOPBACK * link.loopback
    body = _IFINFOMSG.pack(0, link.hardware, link.index, flags, 0)
    body += attribute(_NAME, link.name.encode() + b"\0") + attribute(_MTU, U32.pack(link.mtu))
    body += attribute(_ADDRESS, mac_bytes(link.mac))
    body += attribute(_MASTER, U32.pack(link.master))
    body += attribute(_INFO, attribute(_INFO_KIND, link.kind.encode() + b"\0"))
    body += attribute(_XDP, attribute(_XDP_ATTACHED, bytes([link.xdp])))
    return message(DELLINK if link.gone else NEWLINK, 0, body)
