"""A router's addresses as the namespace's kernel is told of them (linux/if_addr.h). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from dom0.fib.message import (
    CREATE,
    DELADDR,
    INET6,
    NEWADDR,
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

_IFADDRMSG = struct.Struct("=BBBBI")
_ADDRESS, _LOCAL, _BROADCAST, _FLAGS, _PRIORITY = 1, 2, 4, 8, 9
# label (names differ), cache info (the router tells of the end itself), multicast, netns, protocol
_DROPPED = frozenset({3, 6, 10, 11})
_NODAD, _NOPREFIXROUTE = 0x02, 0x200


@dataclass(frozen=True, slots=True)
class Address:
    """``index``: the interface's; ``fixed`` and ``attributes`` are what makes it the same address."""

    index: int
    interface: IPv4Interface | IPv6Interface
    key: bytes
    install: bytes
    remove: bytes


def parse(data: bytes) -> Address:
    """Raises MalformedError, RefusedMessageError."""
    body_of(data, _IFADDRMSG.size)
    family, length, _flags, scope, index = _IFADDRMSG.unpack_from(data, 16)
    if family not in WIDTH_BYTES:
        raise RefusedMessageError(f"address of family {family}")
    width = WIDTH_BYTES[family]
    lengths = {_ADDRESS: width, _LOCAL: width, _BROADCAST: width, _FLAGS: 4, _PRIORITY: 4}
    found = known(data, 16 + _IFADDRMSG.size, lengths, _DROPPED)
    if _ADDRESS not in found or length > 8 * width:
        raise MalformedError("an address without an address, or with a prefix too long")
    flags = U32.unpack(found.pop(_FLAGS, bytes(4)))[0] & _NOPREFIXROUTE | (_NODAD if family == INET6 else 0)
    own = found.get(_LOCAL, found[_ADDRESS])
    fixed = _IFADDRMSG.pack(family, length, 0, scope, index)
    which = b"".join(attribute(kind, found[kind]) for kind in (_ADDRESS, _LOCAL) if kind in found)
    extra = b"".join(attribute(kind, found[kind]) for kind in (_BROADCAST, _PRIORITY) if kind in found)
    body = fixed + which + extra + attribute(_FLAGS, U32.pack(flags))
    return Address(
        index,
        ip_interface((own, length)),
        b"A" + struct.pack("=BBI", family, length, index) + own + found[_ADDRESS],
        message(NEWADDR, REQUEST | CREATE | REPLACE, body),
        message(DELADDR, REQUEST, fixed + which),
    )


def patched(address: Address, new: bool) -> Patched:
    return Patched(address.install if new else address.remove, address.key, new)
