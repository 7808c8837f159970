"""Next-hop objects (linux/nexthop.h), as ``route`` does it for routes. Pure."""

from __future__ import annotations

import struct

from dom0.fib import marks
from dom0.fib.message import (
    CREATE,
    DELNEXTHOP,
    NEWNEXTHOP,
    REPLACE,
    REQUEST,
    U32,
    WIDTH_BYTES,
    MalformedError,
    Patched,
    RefusedMessageError,
    attribute,
    body_of,
    known,
    message,
)
from dom0.fib.route import of_generation

_NHMSG = struct.Struct("=BBBBI")
ID, GROUP, GROUP_TYPE, BLACKHOLE, OIF, GATEWAY = 1, 2, 3, 4, 5, 6
_LENGTHS = {ID: 4, GROUP: -1, GROUP_TYPE: 2, BLACKHOLE: 0, OIF: 4, GATEWAY: -1}
# counters, in dumps of newer kernels
_DROPPED = frozenset({13, 14, 15, 16, 17})
_ENTRY = struct.Struct("=IBBH")
_MOST_ENTRIES = 256
_ONLINK = 0x4
PROTOCOL_AT = 18
"""Where ``nh_protocol`` is in a message."""


def _checked(data: bytes) -> tuple[int, int, dict[int, bytes]]:
    """Family, flags, attributes."""
    body_of(data, _NHMSG.size)
    family, _scope, _protocol, _reserved, flags = _NHMSG.unpack_from(data, 16)
    if family not in (0, *WIDTH_BYTES):
        raise RefusedMessageError(f"next hop of family {family}")
    found = known(data, 16 + _NHMSG.size, _LENGTHS, _DROPPED)
    if ID not in found:
        raise RefusedMessageError("next hop without id")
    if GATEWAY in found and len(found[GATEWAY]) != WIDTH_BYTES.get(family):
        raise MalformedError("a gateway that is no address")
    if len(found.get(GROUP, b"")) % _ENTRY.size or len(found.get(GROUP, b"")) > _MOST_ENTRIES * _ENTRY.size:
        raise MalformedError("a group that is no list of next hops")
    if any(found.get(GROUP_TYPE, b"")):
        raise RefusedMessageError("group that is not of the hash-threshold type")
    return family, flags & _ONLINK, found


def _written(family: int, flags: int, protocol: int, found: dict[int, bytes]) -> bytes:
    body = _NHMSG.pack(family, 0, protocol, 0, flags) + b"".join(attribute(k, v) for k, v in found.items())
    return message(NEWNEXTHOP, REQUEST | CREATE | REPLACE, body)


def from_router(data: bytes, generation: int) -> Patched:
    """A router's next hop as one of ``generation``, with ids to match."""
    family, flags, found = _checked(data)
    found[ID] = of_generation(found[ID], generation)
    if U32.unpack_from(data, 4)[0] & 0xFFFF == DELNEXTHOP:
        return delete(found[ID])
    if GROUP in found:
        entries = [_ENTRY.unpack_from(found[GROUP], at) for at in range(0, len(found[GROUP]), _ENTRY.size)]
        ids = [of_generation(U32.pack(number), generation) for number, *_ in entries]
        found[GROUP] = b"".join(
            one + bytes((weight, 0, 0, 0)) for one, (_, weight, *_) in zip(ids, entries, strict=True)
        )
    return Patched(_written(family, flags, marks.mark(generation), found), b"N" + found[ID], True)


def delete(id_bytes: bytes) -> Patched:
    body = _NHMSG.pack(0, 0, 0, 0, 0) + attribute(ID, id_bytes)
    return Patched(message(DELNEXTHOP, REQUEST, body), b"N" + id_bytes, False)


def from_dump(data: bytes) -> tuple[bool, bytes] | None:
    """(is a group, message to install elsewhere), None if it is not ours."""
    if len(data) <= PROTOCOL_AT or data[PROTOCOL_AT] not in marks.MARKS:
        return None
    family, flags, found = _checked(data)
    return GROUP in found, _written(family, flags, data[PROTOCOL_AT], found)


def id_of(data: bytes) -> bytes:
    """The id of a next hop in a dump."""
    return _checked(data)[2][ID]
