"""Stations that say they have an address of another's: its owner is asked for it, and keeps it if it answers. Pure.

An address goes over in earnest when its device was replaced, or DHCP has given it to another; and a station may lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_Address = IPv4Address | IPv6Address
PATIENCE_S: Final = 3.0
"""So long the owner has to answer; it is asked once a second, for a question or an answer may be lost."""
MOST: Final = 1024


@dataclass
class AddressClaims:
    """By address: who says that it has it, and since when."""

    _claims: dict[_Address, tuple[bytes, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._claims)

    def __iter__(self) -> Iterator[_Address]:
        return iter(self._claims)

    def made(self, address: _Address, mac: bytes, now_s: float) -> bool:
        """``mac`` says that it has ``address``; whether its owner is to be asked, as that is new. The first that says so counts."""
        if address in self._claims or len(self._claims) >= MOST:
            return False
        self._claims[address] = (mac, now_s)
        return True

    def contradicted(self, address: _Address) -> None:
        """Its owner has said that it has it."""
        self._claims.pop(address, None)

    def take_due(self, now_s: float) -> list[tuple[_Address, bytes]]:
        """Those that nobody has contradicted in time."""
        due = [one for one, (_, since_s) in self._claims.items() if now_s - since_s >= PATIENCE_S]
        return [(one, self._claims.pop(one)[0]) for one in due]

    def next_due_s(self) -> float | None:
        return min((since_s + PATIENCE_S for _, since_s in self._claims.values()), default=None)
