"""How many connections each address may have at a port, before anybody has said who it is. Pure.

A connection that says nothing holds its place for some seconds. So places that all share are gone after a few connections from
anywhere; a configured peer's are its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Final

EACH: Final = 8
"""Of one address: a peer has one connection, and one more when it has just started again."""
STRANGERS: Final = 16
"""Of all addresses together that no peer is configured with: a peer may come from another of its own."""


class Places:
    """``known``: the peers' addresses; none: everybody's are alike, ``each`` for one and ``most`` for all."""

    def __init__(self, known: Iterable[str], each: int = EACH, most: int = STRANGERS) -> None:
        self._known = frozenset(map(plain, known))
        self._each, self._most = each, most
        self._taken: Counter[str] = Counter()

    def take(self, address: str) -> bool:
        """False if it has no place left. Each success is to be given back."""
        address = plain(address)
        strangers = self._taken.total() - sum(self._taken[one] for one in self._known)
        if self._taken[address] >= self._each or (address not in self._known and strangers >= self._most):
            return False
        self._taken[address] += 1
        return True

    def give(self, address: str) -> None:
        address = plain(address)
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]


def plain(address: str) -> str:
    """One spelling of an IP address: a socket for both families says ::ffff:192.0.2.1. What is none is left as it is."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped or found)
