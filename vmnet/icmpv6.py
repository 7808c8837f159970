"""ICMPv6 in an IPv6 packet (RFC 4443, 2.3; RFC 8200, 8.1). Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from vmnet.internet_checksum import checksum

PROTOCOL: Final = 58
Address = IPv4Address | IPv6Address
"""IPv6's alone; who has one of either kind has looked."""


def summed(source: Address, target: Address, message: bytes) -> int:
    """The checksum of ``message``, with those of the addresses in it: 0 if it has the right one already."""
    ends = source.packed + target.packed
    return checksum(ends + struct.pack("!II", len(message), PROTOCOL) + message)


def packet(source: Address, target: Address, message: bytes, hops: int) -> bytes:
    """``message`` with a checksum of 0."""
    head = struct.pack("!IHBB", 6 << 28, len(message), PROTOCOL, hops) + source.packed + target.packed
    return head + message[:2] + struct.pack("!H", summed(source, target, message)) + message[4:]
