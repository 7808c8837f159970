"""rtnetlink messages as bytes: numbers, and a walk over attributes that trusts no length (RFC 3549, linux/rtnetlink.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

NOOP, ERROR, DONE = 1, 2, 3
NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34
NEWQDISC, DELQDISC = 36, 37
NEWNETCONF, DELNETCONF = 80, 81
NEWNEXTHOP, DELNEXTHOP, GETNEXTHOP = 104, 105, 106

REQUEST, ACK, REPLACE, EXCLUSIVE, CREATE, DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x300
INET, INET6 = 2, 10
WIDTH_BYTES = {INET: 4, INET6: 16}

HEADER = struct.Struct("=IHHII")
NETFILTER_BEGINS, NETFILTER_COMPLETE = 5, 6  # the agent's own marks (guest/agent.c)
NEWCHAIN = 0x0A03  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWCHAIN (linux/netfilter/nf_tables.h)

U16 = struct.Struct("=H")
U32 = struct.Struct("=I")
ATTRIBUTE = struct.Struct("=HH")
KIND_MASK = 0x3FFF


class MalformedError(Exception):
    """Not what a kernel or a routing daemon writes: the session that sent it is not to be believed any more."""


class TooManyError(MalformedError):
    """More routes and next hops than a host holds for one router."""


class RefusedMessageError(Exception):
    """Well formed, but something that is not copied."""


@dataclass(frozen=True, slots=True)
class Patched:
    """A message for the kernel. Two with the same ``key`` are about the same object; ``new``: it makes the object."""

    message: bytes
    key: bytes
    new: bool


def family_of(address: bytes) -> int:
    """``address``: packed."""
    return INET if len(address) == WIDTH_BYTES[INET] else INET6


def message(kind: int, flags: int, body: bytes) -> bytes:
    return HEADER.pack(16 + len(body), kind, flags, 0, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """Padded."""
    return ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """(type, value) one after another. Raises MalformedError where a length leads outside."""
    end = len(data)
    while offset < end:
        if end - offset < 4:
            if any(data[offset:]):
                raise MalformedError("bytes after the last attribute")
            return
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or length > end - offset:
            raise MalformedError(
                f"attribute {kind & KIND_MASK} of {length} bytes where {end - offset} are left"
            )
        yield kind & KIND_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def known(data: bytes, offset: int, lengths: Mapping[int, int], dropped: frozenset[int]) -> dict[int, bytes]:
    """Attributes by type. ``lengths``: those that are copied and their size in bytes (-1: any); others than ``dropped`` are refused.

    Raises MalformedError for a wrong length or a repetition, RefusedMessageError for a type that is in neither.
    """
    found: dict[int, bytes] = {}
    for kind, value in attributes(data, offset):
        if kind in dropped:
            continue
        if kind not in lengths:
            raise RefusedMessageError(f"attribute {kind}")
        if lengths[kind] not in (-1, len(value)) or kind in found:
            raise MalformedError(f"attribute {kind} of {len(value)} bytes, or twice")
        found[kind] = value
    return found


def number(values: Mapping[int, bytes], kind: int, shape: struct.Struct, of: str) -> int:
    """An attribute that is one number, 0 if it is not there. Raises MalformedError, about ``of``, for a wrong size."""
    value = values.get(kind, bytes(shape.size))
    if len(value) != shape.size:
        raise MalformedError(f"{of} whose attribute {kind} has {len(value)} bytes")
    return int(shape.unpack(value)[0])


def shown(value: bytes, longest: int) -> str:
    """A kernel's name of something, as a log and a terminal can show it: at most ``longest`` characters."""
    return "".join(chr(byte) for byte in value.rstrip(b"\0")[:longest] if 0x20 < byte < 0x7F)


def body_of(data: bytes, size: int) -> None:
    """Raises MalformedError unless the fixed part of ``size`` bytes is there."""
    if len(data) < 16 + size:
        raise MalformedError(f"a message of {len(data)} bytes, {16 + size} are its fixed part")


def split(data: bytes) -> Iterator[bytes]:
    """The messages of a datagram or a chunk. Raises MalformedError where a length leads outside."""
    offset, end = 0, len(data)
    while offset < end:
        length = U32.unpack_from(data, offset)[0] if end - offset >= 16 else 0
        if not 16 <= length <= end - offset:
            raise MalformedError(f"a message of {length} bytes where {end - offset} are left")
        yield data[offset : offset + length]
        offset += (length + 3) & ~3
