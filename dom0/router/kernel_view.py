"""What a router's namespace holds, as its kernel says."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from ipaddress import IPv4Address, IPv6Address

from dom0.fib import address, dump, sweep
from dom0.fib.message import GETADDR, RefusedMessageError


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
    return sum(1 for _ in sweep.marked_routes(netns))


def has_routes(netns: str) -> bool:
    """Whether there is one that came from the router."""
    return next(sweep.marked_routes(netns), None) is not None
