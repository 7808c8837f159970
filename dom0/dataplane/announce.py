"""The frames that tell a network where a MAC address and its IP addresses now are. Pure: built before they are needed.

RARP moves the switches' tables even for a guest whose addresses nobody knows; gratuitous ARP (RFC 5227, section 3) and the
unsolicited neighbour advertisement (RFC 4861, section 7.2.6, override set) refresh neighbours as well.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from controller_bridge.local_frame import TYPE, local_frame
from vmnet import icmpv6

_NOBODY = b"\x02VM"
_BROADCAST = b"\xff" * 6
_MINIMUM_FRAME_BYTES = 60
_TAG = b"\x81\x00"
_ARP, _RARP, _IPV6 = 0x0806, 0x8035, 0x86DD
_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT, _OVERRIDE = 135, 136, 0x20000000
_NEIGHBOUR_HOPS = 255
_ALL_NODES = IPv6Address("ff02::1")
_LINK_LOCAL = bytes.fromhex("fe80000000000000")
_ALL_NODES_MAC = bytes.fromhex("333300000001")


def announcements(mac: bytes, addresses: Iterable[IPv4Address | IPv6Address]) -> list[bytes]:
    """RARP for ``mac`` (6 bytes), then one gratuitous ARP or neighbour advertisement an address, in the order given."""
    frames = [rarp(mac)]
    for address in addresses:
        frames.append(
            gratuitous_arp(mac, address) if isinstance(address, IPv4Address) else advertisement(mac, address)
        )
    return frames


def station_here(mac: bytes, vlan: int) -> bytes:
    """RARP for a station behind a guest's interface; ``vlan``: in whose tag, 0: in none (IEEE 802.1Q, clause 9.3)."""
    frame = rarp(mac)
    return frame if not vlan else frame[:12] + _TAG + struct.pack("!H", vlan) + frame[12:]


def here_only(mac: bytes) -> bytes:
    """A frame from ``mac`` to ``mac``: a switch learns where it came in, and has nowhere to send it (nor, so, anybody to tell)."""
    return local_frame(mac, mac, b"")


def nobody() -> bytes:
    """A random MAC address of our own, locally administered, that no station has."""
    return _NOBODY + secrets.token_bytes(3)


def is_nobody(mac: bytes) -> bool:
    """Whether a switch may have learned it from our own frames."""
    return mac.startswith(_NOBODY)


def spare_frame() -> bytes:
    """A frame that nobody misses: for the tap of a guest that does not run.

    Its QEMU reads one frame, and keeps it. Without vhost it delivers that frame when the guest goes on; with vhost it never does
    (QEMU ``net/net.c``, ``hw/net/virtio-net.c``).
    """
    return local_frame(nobody(), nobody(), b"")


def here_afresh(mac: bytes, stranger: bytes) -> tuple[bytes, bytes]:
    """As :func:`here_only`, by two frames that an Open vSwitch has no flow for: from those it learns at once.

    The first is from and to ``stranger``, an address that no station has, and another one each time; the second goes there.
    """
    return here_only(stranger), local_frame(stranger, mac, b"")


def end_marker(mac: bytes, mark: bytes) -> bytes:
    """A frame from ``mac`` to ``mac`` that says, by ``mark`` (at most 46 bytes), who has sent it."""
    return local_frame(mac, mac, mark)


def is_end_marker(frame: bytes, mark: bytes) -> bool:
    return frame[12 : 14 + len(mark)] == TYPE + mark


def rarp(mac: bytes) -> bytes:
    """A RARP "who am I" request (RFC 903), as QEMU sends it."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + mac + bytes(4) + mac + bytes(4)
    return _frame(_BROADCAST, mac, _RARP, body)


def gratuitous_arp(mac: bytes, address: IPv4Address) -> bytes:
    """An ARP request from ``address`` for ``address``: every neighbour that knows it updates its entry."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address.packed + bytes(6) + address.packed
    return _frame(_BROADCAST, mac, _ARP, body)


def arp_probe(mac: bytes, to: bytes, address: IPv4Address) -> bytes:
    """The question to ``to`` alone whether it has ``address`` (RFC 5227: from no address, so it is no news of ``mac`` to anybody)."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + bytes(10) + address.packed
    return _frame(to, mac, _ARP, body)


def advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """An unsolicited neighbour advertisement to all nodes, target link-layer address option included."""
    body = struct.pack("!I", _OVERRIDE) + address.packed + bytes((2, 1)) + mac
    return _frame(_ALL_NODES_MAC, mac, _IPV6, _icmpv6(address, _ALL_NODES, _NEIGHBOUR_ADVERTISEMENT, body))


def solicitation(mac: bytes, to: bytes, address: IPv6Address) -> bytes:
    """The question to ``to`` alone whether it has ``address`` (RFC 4861, section 7.2.2), from the link-local address of ``mac``."""
    body = bytes(4) + address.packed + bytes((1, 1)) + mac
    return _frame(to, mac, _IPV6, _icmpv6(link_local(mac), address, _NEIGHBOUR_SOLICITATION, body))


def link_local(mac: bytes) -> IPv6Address:
    """The address that a station makes of its MAC address (RFC 4291, appendix A)."""
    return IPv6Address(_LINK_LOCAL + bytes((mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:])))


def _icmpv6(source: IPv6Address, destination: IPv6Address, kind: int, body: bytes) -> bytes:
    """An IPv6 packet of neighbour discovery, of that ICMPv6 type, code 0."""
    return icmpv6.packet(source, destination, struct.pack("!BBH", kind, 0, 0) + body, _NEIGHBOUR_HOPS)


def _frame(destination: bytes, source: bytes, ethertype: int, body: bytes) -> bytes:
    return (destination + source + struct.pack("!H", ethertype) + body).ljust(_MINIMUM_FRAME_BYTES, b"\0")
