"""VRRP advertisements and OSPF hellos: said again as they are, they keep a router's neighbours as they were. Pure.

None of them tells one sending from the next, but for cryptographic authentication, whose sequence numbers do: those are left alone.
"""

from __future__ import annotations

import struct

from dom0.router.packet import Packet, ones_sum, read
from dom0.router.session import Keepalive, Key, Unanswerable, Why

_VRRP, _OSPF = 112, 89
_VRRP_GROUPS = (bytes((224, 0, 0, 18)), bytes.fromhex("ff02") + bytes(13) + b"\x12")
_OSPF_GROUPS = (bytes((224, 0, 0, 5)), bytes.fromhex("ff02") + bytes(13) + b"\x05")
_VIRTUAL_MAC = {4: bytes.fromhex("00005e0001"), 16: bytes.fromhex("00005e0002")}
_V3_AUTHENTICATION_TRAILER = 0x0400
_FAST_HELLOS = 4


def virtual_mac(key: Key) -> bytes | None:
    """The MAC address a virtual router speaks from besides its interface's own (RFC 5798, 7.3)."""
    return _VIRTUAL_MAC[len(key.source)] + bytes((key.instance,)) if key.protocol == "vrrp" else None


def vrrp(frame: bytes) -> Keepalive | Unanswerable | None:
    """An advertisement of VRRP version 2 (RFC 3768) or 3 (RFC 5798); None if it is none."""
    packet = read(frame)
    if packet is None or packet.protocol != _VRRP or packet.destination not in _VRRP_GROUPS:
        return None
    if packet.hop_limit != 255 or len(packet.payload) < 8 or packet.payload[0] not in (0x21, 0x31):
        return None
    kind, vrid, priority, _count, interval = struct.unpack_from("!BBBBH", packet.payload)
    key = Key("vrrp", packet.source, packet.destination, vrid)
    interval_s = float(interval & 0xFF) if kind == 0x21 else (interval & 0xFFF) / 100
    if kind == 0x21 and interval >> 8 > 1:
        return Unanswerable(key, Why.AUTHENTICATED)
    if priority == 0:
        return Unanswerable(key, Why.NOT_UP)
    # three intervals and the skew, which is shortest for the greatest priority (RFC 5798, 6.1)
    return Keepalive(key, packet.data, interval_s, 3.0) if interval_s else Unanswerable(key, Why.MALFORMED)


def ospf(frame: bytes) -> Keepalive | Unanswerable | None:
    """A hello to all routers on the link, OSPF version 2 (RFC 2328, A.3.2) or 3 (RFC 5340, A.3.2); None if it is none."""
    packet = read(frame)
    if packet is None or packet.protocol != _OSPF or packet.destination not in _OSPF_GROUPS:
        return None
    version = 2 if len(packet.source) == 4 else 3
    if len(packet.payload) < 36 or packet.payload[:2] != bytes((version, 1)):
        return None
    return _hello_2(packet) if version == 2 else _hello_3(packet)


def _hello_2(packet: Packet) -> Keepalive | Unanswerable:
    area, _sum, authentication = struct.unpack_from("!IHH", packet.payload, 8)
    key = Key("ospf", packet.source, packet.destination, area)
    (length,) = struct.unpack_from("!H", packet.payload, 2)
    if not 44 <= length <= len(packet.payload):
        return Unanswerable(key, Why.MALFORMED)
    if authentication > 1:
        return Unanswerable(key, Why.AUTHENTICATED)
    interval, _options, _priority, dead = struct.unpack_from("!HBBI", packet.payload, 28)
    # neither the authentication field (RFC 2328, D.4) nor link-local signalling behind the packet (RFC 5613) is summed
    if ones_sum(packet.payload[:16] + packet.payload[24:length]) != 0xFFFF:
        return Unanswerable(key, Why.MALFORMED)
    return _hello(key, packet, interval, dead, length > 44)


def _hello_3(packet: Packet) -> Keepalive | Unanswerable:
    area, _sum, instance = struct.unpack_from("!IHB", packet.payload, 8)
    # one link may carry several instances (RFC 5340, 2.4)
    key = Key("ospf", packet.source, packet.destination, area << 8 | instance)
    (length,) = struct.unpack_from("!H", packet.payload, 2)
    if not 36 <= length <= len(packet.payload):
        return Unanswerable(key, Why.MALFORMED)
    options, interval, dead = struct.unpack_from("!IHH", packet.payload, 20)
    if options & _V3_AUTHENTICATION_TRAILER:
        return Unanswerable(key, Why.AUTHENTICATED)
    return _hello(key, packet, interval, dead, length > 36)


def _hello(
    key: Key, packet: Packet, interval: int, dead: int, names_neighbours: bool
) -> Keepalive | Unanswerable:
    """Both intervals in s. Fast hellos say 0 for an interval below a second: four in a dead interval, as is usual, are enough."""
    interval_s = float(interval or dead / _FAST_HELLOS)
    if not interval_s or dead < interval_s:
        return Unanswerable(key, Why.MALFORMED)
    # said again to one that has become a neighbour since, it would undo that (1-WayReceived, RFC 2328, 10.3)
    if not names_neighbours:
        return Unanswerable(key, Why.NOT_UP)
    return Keepalive(key, packet.data, interval_s, dead / interval_s)
