"""The addresses of a VM that sends nothing: ARP and neighbour solicitation ask it which addresses of the table it has.

The questions go to its tap alone. Its answers go to the host's bridge; :mod:`dom0.dataplane.addresses` receives them at the tap.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import psutil

from dom0.conntrack import table
from dom0.conntrack.entry import Address, Entry
from dom0.dataplane.announce import arp_probe, solicitation
from dom0.fib.message import INET, INET6, family_of
from dom0.guest_port import GuestPort

MOST_ASKED: Final = 256
_MOST_READ: Final = 65_536
_BURST: Final = 16
_PAUSE_S: Final = 0.02
"""A VM that has slept takes its time to read; its queue is to stay short."""
_ANSWER_S: Final = 0.3


def local_addresses() -> frozenset[bytes]:
    """This host's own, packed."""
    every = (one for addresses in psutil.net_if_addrs().values() for one in addresses)
    return frozenset(
        ip_address(one.address.partition("%")[0]).packed
        for one in every
        if one.family in (socket.AF_INET, socket.AF_INET6)
    )


def candidates(entries: Iterable[Entry], known: frozenset[bytes], local: frozenset[bytes]) -> list[Address]:
    """Ends of connections that may be the VM's: the most frequent first, for a VM has many connections. At most 256. Pure.

    None of a family of which an address is ``known``, and none that speaks with this host (``local``): a VM learns by the questions
    which addresses others have.
    """
    families = {len(one) for one in known}
    forwarded = (one.key for one in entries if len(one.key.source) not in families and not one.key.has(local))
    ends = Counter(end for key in forwarded for end in (key.source, key.destination))
    return [address for end, _times in ends.most_common() if _is_usable(address := ip_address(end))][
        :MOST_ASKED
    ]


def _is_usable(address: Address) -> bool:
    return not (address.is_multicast or address.is_loopback or address.is_unspecified)


class AddressProbe:
    """``known``: the addresses that the VM has shown by now, packed."""

    def __init__(self, ports: Sequence[GuestPort], known: Callable[[], frozenset[bytes]]) -> None:
        self._ports, self._known = ports, known

    async def ask(self) -> None:
        """Once; returns when the answers should have come. OSError or MalformedError if the table cannot be read."""
        known = self._known()
        unknown = {INET, INET6} - {family_of(one) for one in known}
        if not unknown:
            return
        entries = await asyncio.to_thread(table.first, _MOST_READ, sorted(unknown))
        asked = candidates(entries, known, local_addresses())
        if not asked:
            return
        for port in self._ports:
            await self._ask_at(port, asked)
        await asyncio.sleep(_ANSWER_S)  # nothing tells that there will be no more answers

    async def _ask_at(self, port: GuestPort, asked: Sequence[Address]) -> None:
        asker = port.asker
        if asker is None:
            return
        for begin in range(0, len(asked), _BURST):
            port.ask(question(asker, port.mac, one) for one in asked[begin : begin + _BURST])
            await asyncio.sleep(_PAUSE_S)


def question(asker: bytes, guest: bytes, address: IPv4Address | IPv6Address) -> bytes:
    """To the VM alone, from the MAC address ``asker``: the answer comes to that. Pure."""
    if isinstance(address, IPv4Address):
        return arp_probe(asker, guest, address)
    return solicitation(asker, guest, address)
