"""Routes: RTM_NEWROUTE and RTM_DELROUTE of a router, or of a dump, made into what the namespace's kernel is told.

All functions are pure. What they return has its destination as the first attribute (``templates`` relies on that).
"""

from __future__ import annotations

import struct

from dom0.fib import marks
from dom0.fib.message import (
    CREATE,
    DELROUTE,
    INET,
    NEWROUTE,
    REPLACE,
    REQUEST,
    U32,
    WIDTH_BYTES,
    MalformedError,
    Patched,
    RefusedMessageError,
    attribute,
    attributes,
    body_of,
    known,
    message,
)

RTMSG = struct.Struct("=BBBBBBBBI")
_HOP = struct.Struct("=HBBi")
DST, SRC, OIF, GATEWAY, PRIORITY, PREFSRC, METRICS, MULTIPATH, FLOW, TABLE, VIA, PREF, NH_ID = (
    *(1, 2, 4, 5, 6, 7, 8, 9, 11, 15, 18, 20, 30),
)
# cache info, mark, multicast counters, padding, expiry, uid, ports: told by the kernel, not for it
_DROPPED = frozenset({12, 16, 17, 23, 24, 25, 27, 28, 29})
_ANY = {OIF: 4, PRIORITY: 4, METRICS: -1, MULTIPATH: -1, FLOW: 4, TABLE: 4, VIA: -1, PREF: 1, NH_ID: 4}
_LENGTHS = {
    family: {**_ANY, **dict.fromkeys((DST, SRC, GATEWAY, PREFSRC), width)}
    for family, width in WIDTH_BYTES.items()
}
_HOPS = (OIF, GATEWAY, MULTIPATH, VIA)
_TYPES = frozenset({1, 6, 7, 8, 9})  # unicast, blackhole, unreachable, prohibit, throw
_LOCAL_TABLE = 255
_CLONED, _ONLINK = 0x200, 0x4
_REDIRECT, _KERNEL = 1, 2
_MOST_HOPS = 256
PROTOCOL_AT = 21
"""Where ``rtm_protocol`` is in a message."""


class Route:
    """A checked route: fields of ``struct rtmsg`` and attributes by type."""

    __slots__ = ("attributes", "family", "kind", "protocol", "rtmsg", "table")

    def __init__(self, data: bytes) -> None:
        body_of(data, RTMSG.size)
        self.kind: int = U32.unpack_from(data, 4)[0] & 0xFFFF
        self.rtmsg: tuple[int, ...] = RTMSG.unpack_from(data, 16)
        self.family, length, source_length, _tos, table, self.protocol, *_ = self.rtmsg
        if self.family not in WIDTH_BYTES:
            raise RefusedMessageError(f"route of family {self.family}")
        bits = 8 * WIDTH_BYTES[self.family]
        if length > bits or source_length > (0 if self.family == INET else bits):
            raise MalformedError(f"a prefix of {length} bits from {source_length}")
        self.attributes = known(data, 16 + RTMSG.size, _LENGTHS[self.family], _DROPPED)
        if bool(length) and DST not in self.attributes:
            raise MalformedError("a prefix without a destination")
        self.table: int = U32.unpack(self.attributes[TABLE])[0] if TABLE in self.attributes else table
        self._check_nested()

    def _check_nested(self) -> None:
        for _kind, _value in attributes(self.attributes.get(METRICS, b""), 0):
            pass
        if not 0 <= len(self.attributes.get(VIA, bytes(6))) - 2 <= 16:
            raise MalformedError("a next hop of another family that is no address")
        if MULTIPATH in self.attributes:
            self.attributes[MULTIPATH] = hops(self.attributes[MULTIPATH], self.family)

    def copied(self) -> bool:
        """False for what the namespace's kernel makes itself, and what is none of a FIB's."""
        kind, flags = self.rtmsg[7], self.rtmsg[8]
        return not (
            self.table == _LOCAL_TABLE or flags & _CLONED or self.protocol in (_REDIRECT, _KERNEL)
        ) and (kind in _TYPES or (self.kind == DELROUTE and kind == 0))

    def key(self) -> bytes:
        """What makes it this route: family, prefixes, TOS, table, priority; the destination last."""
        family, length, source_length, tos, *_ = self.rtmsg
        fixed = struct.pack("=BBBBI", family, length, source_length, tos, self.table)
        found = self.attributes
        return b"R" + fixed + found.get(PRIORITY, bytes(4)) + found.get(SRC, b"") + found.get(DST, b"")

    def written(self, kind: int, flags: int, protocol: int) -> bytes:
        """As a message for the kernel."""
        family, length, source_length, tos, table, _protocol, scope, type_, rtm_flags = self.rtmsg
        fixed = RTMSG.pack(
            family, length, source_length, tos, table, protocol, scope, type_, rtm_flags & _ONLINK
        )
        found = dict(self.attributes)
        if NH_ID in found:
            # a kernel tells next hops both ways and takes them only in one
            for one in _HOPS:
                found.pop(one, None)
        first = attribute(DST, found.pop(DST)) if DST in found else b""
        return message(kind, flags, fixed + first + b"".join(attribute(k, v) for k, v in found.items()))


def hops(data: bytes, family: int) -> bytes:
    """RTA_MULTIPATH with its flags cleaned (a dump has "dead" in them). Raises MalformedError, RefusedMessageError."""
    out = []
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _HOP.size:
            raise MalformedError("half a next hop")
        length, flags, weight, index = _HOP.unpack_from(data, offset)
        if not _HOP.size <= length <= end - offset:
            raise MalformedError(f"a next hop of {length} bytes where {end - offset} are left")
        inner = known(
            data[offset : offset + length],
            _HOP.size,
            {GATEWAY: WIDTH_BYTES[family], VIA: -1, FLOW: 4},
            _DROPPED,
        )
        tail = b"".join(attribute(kind, value) for kind, value in inner.items())
        out.append(_HOP.pack(_HOP.size + len(tail), flags & _ONLINK, weight, index) + tail)
        offset += (length + 3) & ~3
    if not 0 < len(out) <= _MOST_HOPS:
        raise MalformedError(f"{len(out)} next hops")
    return b"".join(out)


def from_router(data: bytes, generation: int) -> Patched | None:
    """A router's route as one of ``generation``; None if it is not copied."""
    route = Route(data)
    if not route.copied():
        return None
    key = route.key()
    if route.kind == DELROUTE:
        _only_identity(route)
        return Patched(route.written(DELROUTE, REQUEST, 0), key, False)
    if NH_ID in route.attributes:
        route.attributes[NH_ID] = of_generation(route.attributes[NH_ID], generation)
    return Patched(route.written(NEWROUTE, REQUEST | CREATE | REPLACE, marks.mark(generation)), key, True)


def _only_identity(route: Route) -> None:
    """Delete whatever next hops it has. But one hop of an IPv6 multipath route may go alone: then the message names that hop."""
    one_by_one = route.family != INET and NH_ID not in route.attributes
    for kind in (NH_ID, FLOW, PREFSRC, METRICS, *(() if one_by_one else _HOPS)):
        route.attributes.pop(kind, None)


def from_dump(data: bytes) -> Patched | None:
    """A route that the namespace's kernel holds, to be installed as it is elsewhere; None if it is not ours."""
    if data[PROTOCOL_AT] not in marks.MARKS:
        return None
    route = Route(data)
    return Patched(route.written(NEWROUTE, REQUEST | CREATE | REPLACE, route.protocol), route.key(), True)


def deletion(data: bytes) -> Patched | None:
    """The deletion of a route that the kernel holds. It names the mark: a route that got a newer one meanwhile stays."""
    route = Route(data)
    for kind in set(route.attributes) - {DST, SRC, TABLE, PRIORITY}:
        del route.attributes[kind]
    return Patched(route.written(DELROUTE, REQUEST, route.protocol), route.key(), False)


def of_generation(id_bytes: bytes, generation: int) -> bytes:
    """A next hop's id with the generation in it. Raises RefusedMessageError where there is no room for it."""
    (number,) = U32.unpack(id_bytes)
    if not 0 < number <= marks.MOST_ID:
        raise RefusedMessageError(f"next hop id {number}")
    return U32.pack(number | generation << marks.ID_BITS)
