"""What a router's namespace holds, as its kernel says."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from dom0.fib import address, dump, marks, route
from dom0.fib.message import GETADDR, GETROUTE, INET, INET6, RefusedMessageError


def addresses(netns: str) -> dict[int, list[IPv4Address | IPv6Address]]:
    """By ifindex. OSError if there is no such namespace."""
    found: dict[int, list[IPv4Address | IPv6Address]] = defaultdict(list)
    for piece in dump.pieces(netns, GETADDR, 0):
        for one in piece:
            with contextlib.suppress(RefusedMessageError):
                parsed = address.parse(one)
                found[parsed.index].append(parsed.interface.ip)
    return found


def count_routes(netns: str) -> int:
    """Those that came from the router. 0.1 s for 100,000."""
    return sum(1 for _ in _routes(netns))


def has_routes(netns: str) -> bool:
    """Whether there is one that came from the router."""
    return next(_routes(netns), None) is not None


def _routes(netns: str) -> Iterator[bytes]:
    for family in (INET, INET6):
        for piece in dump.pieces(netns, GETROUTE, family):
            yield from (one for one in piece if one[route.PROTOCOL_AT] in marks.MARKS)
