"""Neighbours of a dump (linux/neighbour.h), made so that a namespace that never spoke to them uses them at once. Pure."""

from __future__ import annotations

import struct

from dom0.fib.message import (
    CREATE,
    NEWNEIGH,
    REPLACE,
    REQUEST,
    WIDTH_BYTES,
    attribute,
    attributes,
    body_of,
    message,
)

_NDMSG = struct.Struct("=BBHiHBB")
_DST, _LLADDR = 1, 2
_REACHABLE, _STALE, _DELAY, _PROBE, _PERMANENT = 0x02, 0x04, 0x08, 0x10, 0x80
_KNOWN = _REACHABLE | _STALE | _DELAY | _PROBE | _PERMANENT
_PROXY, _ROUTER = 0x08, 0x80


def from_dump(data: bytes, besides: int) -> bytes | None:
    """To install elsewhere; None for one without a known link address, or on interface ``besides``."""
    body_of(data, _NDMSG.size)
    family, _, _, index, state, flags, _type = _NDMSG.unpack_from(data, 16)
    if family not in WIDTH_BYTES or not state & _KNOWN or flags & _PROXY or index == besides:
        return None
    found = {kind: value for kind, value in attributes(data, 16 + _NDMSG.size) if kind in (_DST, _LLADDR)}
    if len(found) != 2:
        return None
    state = _PERMANENT if state & _PERMANENT else _REACHABLE
    body = _NDMSG.pack(family, 0, 0, index, state, flags & _ROUTER, 0)
    body += b"".join(attribute(kind, value) for kind, value in found.items())
    return message(NEWNEIGH, REQUEST | CREATE | REPLACE, body)
