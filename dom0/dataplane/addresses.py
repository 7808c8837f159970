"""Which addresses a guest uses, learnt from what it sends: ARP and neighbour discovery always, a sample of the rest.

Only the guest's own frames count (its MAC as source), so it can make us announce nothing it could not announce itself.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from dom0.dataplane.listener import Listener
from dom0.dataplane.packet_filter import Filter

_MOST_ADDRESSES = 64
_MOST_FRAMES = 64
"""A turn. A guest that floods (4096 frames took 16 ms) holds up no other guest's switchover."""
_SAMPLE_MASK = 0x3F
# classic BPF: not outgoing; ARP whole; IPv6 with ICMPv6 next; else one of 64 (SKF_AD_RANDOM)
_FILTER: Filter = (
    (0x28, 0, 0, 0xFFFFF004),  # ldh pkt_type
    (0x15, 8, 0, 4),  # outgoing -> reject
    (0x28, 0, 0, 12),  # ethertype
    (0x15, 5, 0, 0x0806),  # ARP -> accept
    (0x15, 0, 2, 0x86DD),
    (0x30, 0, 0, 20),  # IPv6 next header
    (0x15, 2, 0, 58),  # ICMPv6 -> accept
    (0x20, 0, 0, 0xFFFFF038),  # random
    (0x45, 1, 0, _SAMPLE_MASK),  # any bit set -> reject
    (0x06, 0, 0, 128),
    (0x06, 0, 0, 0),
)


def source_address(frame: bytes, mac: bytes) -> IPv4Address | IPv6Address | None:
    """The unicast address the sender of ``frame`` uses for itself; None if it says none or is not ``mac``. Pure."""
    if len(frame) < 42 or frame[6:12] != mac:
        return None
    ethertype = struct.unpack_from("!H", frame, 12)[0]
    found: IPv4Address | IPv6Address | None = None
    if ethertype == 0x0806 and frame[22:28] == mac:
        found = IPv4Address(frame[28:32])
    elif ethertype == 0x0800:
        found = IPv4Address(frame[26:30])
    elif ethertype == 0x86DD:
        found = IPv6Address(frame[22:38])
    if (
        found is None
        or found.is_multicast
        or found.is_unspecified
        or found.is_loopback
        or found == IPv4Address("255.255.255.255")
    ):
        return None
    return found


class AddressWatch:
    """Listens on a guest's tap; call :meth:`turn` whenever :attr:`fd` is readable. At most 64 addresses are kept."""

    def __init__(self, tap: str, mac: bytes) -> None:
        self._mac = mac
        self.found: dict[IPv4Address | IPv6Address, None] = {}
        self._listener = Listener(tap, _FILTER)

    @property
    def fd(self) -> int:
        return self._listener.fd

    def turn(self) -> None:
        for frame in self._listener.drain(_MOST_FRAMES):
            address = source_address(frame, self._mac)
            if address is not None and len(self.found) < _MOST_ADDRESSES:
                self.found.setdefault(address)

    def close(self) -> None:
        self._listener.close()
