"""Neighbours as the kernel tells of them and is told of them (linux/neighbour.h). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dom0.fib.message import (
    CREATE,
    DELNEIGH,
    NEWNEIGH,
    REPLACE,
    REQUEST,
    WIDTH_BYTES,
    MalformedError,
    Patched,
    RefusedMessageError,
    attribute,
    attributes,
    body_of,
    family_of,
    message,
)

_NDMSG = struct.Struct("=BBHiHBB")
_DST, _LLADDR = 1, 2
_REACHABLE, _STALE, _DELAY, _PROBE, _NOARP, _PERMANENT = 0x02, 0x04, 0x08, 0x10, 0x40, 0x80
_KNOWN = _REACHABLE | _STALE | _DELAY | _PROBE | _PERMANENT
_USE, _PROXY, _ROUTER = 0x01, 0x08, 0x80
_UNICAST = 1  # ndm_type: the kernel itself has entries of other types for groups and its own addresses
_LONGEST_LINK_ADDRESS_BYTES = 32  # MAX_ADDR_LEN, linux/netdevice.h


@dataclass(frozen=True, order=True, slots=True)
class Neighbour:
    """``address``: packed (4 or 16 bytes)."""

    index: int
    address: bytes


@dataclass(frozen=True, slots=True)
class PermanentNeighbour:
    """``permanent``: somebody has set its link address, and nobody is asked for it. ``install`` makes it, if it is."""

    index: int
    permanent: bool
    key: bytes
    install: bytes
    remove: bytes

    def patched(self, new: bool) -> Patched:
        return Patched(self.install if new else self.remove, self.key, new)


def parse(data: bytes) -> PermanentNeighbour:
    """A message about any neighbour. Raises MalformedError, RefusedMessageError."""
    body_of(data, _NDMSG.size)
    family, _, _, index, state, flags, kind = _NDMSG.unpack_from(data, 16)
    if family not in WIDTH_BYTES or flags & _PROXY or kind not in (0, _UNICAST):
        raise RefusedMessageError(f"neighbour of family {family}, flags {flags:#x}, type {kind}")
    values = dict(attributes(data, 16 + _NDMSG.size))
    address, link_address = values.get(_DST, b""), values.get(_LLADDR, b"")
    if len(address) != WIDTH_BYTES[family] or len(link_address) > _LONGEST_LINK_ADDRESS_BYTES:
        raise MalformedError(f"a neighbour with an address of {len(address)} bytes")
    which = attribute(_DST, address)
    fixed = _NDMSG.pack(family, 0, 0, index, _PERMANENT, flags & _ROUTER, 0)
    return PermanentNeighbour(
        index,
        bool(state & (_PERMANENT | _NOARP)) and bool(link_address),
        b"G" + struct.pack("=i", index) + address,
        message(NEWNEIGH, REQUEST | CREATE | REPLACE, fixed + which + attribute(_LLADDR, link_address)),
        message(DELNEIGH, REQUEST, fixed + which),
    )


def ask(neighbour: Neighbour) -> bytes:
    """Let the kernel find out its link address now, as if there were a packet for it."""
    body = _NDMSG.pack(family_of(neighbour.address), 0, 0, neighbour.index, 0, _USE, 0) + attribute(
        _DST, neighbour.address
    )
    return message(NEWNEIGH, REQUEST | CREATE, body)


def known(data: bytes) -> Neighbour | None:
    """The neighbour whose link address a message tells; None if it tells of none."""
    body_of(data, _NDMSG.size)
    _family, _, _, index, state, _flags, _type = _NDMSG.unpack_from(data, 16)
    found = dict(attributes(data, 16 + _NDMSG.size))
    return Neighbour(index, found[_DST]) if state & _KNOWN and _DST in found else None


def from_dump(data: bytes, besides: int) -> bytes | None:
    """To install elsewhere, where it is used at once; None for one without a known link address, or on interface ``besides``."""
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
