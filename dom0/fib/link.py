"""A router's interfaces, as reported to whoever makes the same ones here. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dom0.fib.message import DELLINK, U32, MalformedError, RefusedMessageError, attributes, body_of

_IFINFOMSG = struct.Struct("=BxHiII")
_ADDRESS, _NAME, _MTU = 1, 3, 4
_UP = 0x1


@dataclass(frozen=True, slots=True)
class VmLink:
    """An interface in the router. ``mac``: empty if it has none; ``mtu`` in bytes; ``up``: as configured; ``gone``: it is no more."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    gone: bool = False


def parse(data: bytes) -> VmLink:
    """Raises MalformedError; RefusedMessageError for what is not about a link as such (a bridge tells of its ports alike)."""
    body_of(data, _IFINFOMSG.size)
    family, _kind, index, flags, _change = _IFINFOMSG.unpack_from(data, 16)
    if family:
        raise RefusedMessageError(f"link of family {family}")
    found = {
        kind: value
        for kind, value in attributes(data, 16 + _IFINFOMSG.size)
        if kind in (_ADDRESS, _NAME, _MTU)
    }
    name = found.get(_NAME, b"").rstrip(b"\0")
    if index <= 0 or not 0 < len(name) < 16 or not name.isascii() or not name.decode().isprintable():
        raise MalformedError("an interface without a usable index or name")
    if len(found.get(_MTU, bytes(4))) != 4 or len(found.get(_ADDRESS, b"")) > 32:
        raise MalformedError("an interface with an MTU or an address of a strange size")
    (mtu,) = U32.unpack(found.get(_MTU, bytes(4)))
    gone = U32.unpack_from(data, 4)[0] & 0xFFFF == DELLINK
    return VmLink(index, name.decode(), found.get(_ADDRESS, b"").hex(":"), mtu, bool(flags & _UP), gone)
