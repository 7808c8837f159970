"""Many routes to announce, as a batch for ip(8): the kernel has them at once, and FRR redistributes the kernel's. Pure text.

Not by staticd: FRR 8 copies its whole configuration for each line of it; 10,000 lines were not read within a minute.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

MAX_ROUTES = 1 << 18
_IPV4 = int(IPv4Address("100.64.0.0"))
"""Shared address space (RFC 6598), a /10: as many /28 as ``MAX_ROUTES``."""
_IPV6 = int(IPv6Address("2001:db8::"))
"""For documentation (RFC 3849), a /32, cut into /64."""


def ipv4_prefix(number: int) -> str:
    """The ``number``-th prefix (from 0) that a node announces."""
    return f"{IPv4Address(_IPV4 + (number << 4))}/28"


def ipv6_prefix(number: int) -> str:
    """As :func:`ipv4_prefix`."""
    return f"{IPv6Address(_IPV6 + (number << 64))}/64"


def ipv4_lines(count: int) -> list[str]:
    """For ``ip -4 -batch``."""
    return [f"route add blackhole {ipv4_prefix(number)} proto static" for number in range(count)]


def ipv6_lines(count: int) -> list[str]:
    """For ``ip -6 -batch``."""
    return [f"route add blackhole {ipv6_prefix(number)} proto static" for number in range(count)]
