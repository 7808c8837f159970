"""What a gateway's address says to ping(8) and traceroute(8): echo replies, and to UDP that no program has the port. Pure.

RFC 792 and RFC 4443; to whom no error is sent: RFC 1122, 3.2.2. Fragments and IPv6 extension headers are not answered.
"""

from __future__ import annotations

import struct
from collections.abc import Set
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from controller_bridge.core.hosts import Address
from vmnet import icmpv6
from vmnet.internet_checksum import checksum

_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_HEAD4, _HEAD6 = 20, 40
_ICMP, _UDP = 1, 17
_FRAGMENT: Final = 0x3FFF
"""More fragments, or an offset."""
_HOPS: Final = 64
_DO_NOT_FRAGMENT: Final = 0x4000
_LARGEST4, _LARGEST6 = 576, 1280
"""Bytes of an error with its IP header (RFC 1812, 4.3.2.3; RFC 4443, 2.4)."""


class _Packet(NamedTuple):
    source: Address
    target: Address
    protocol: int
    body: bytes
    whole: bytes


def answer(frame: bytes, own: Set[Address], mac: bytes) -> bytes | None:
    """The frame that goes back to who sent ``frame`` to ``mac``; None if it is malformed, or nothing that is answered."""
    packet = _read(frame)
    if packet is None or packet.target not in own or not _one_host(packet.source) or packet.source in own:
        return None
    said = _reply(packet)
    if said is None:
        return None
    kind = _IPV4 if packet.target.version == 4 else _IPV6
    return (frame[6:12] + mac + kind + _wrapped(packet, said)).ljust(60, b"\0")


def _read(frame: bytes) -> _Packet | None:
    if frame[12:14] == _IPV4:
        return _read4(frame[14:])
    return _read6(frame[14:]) if frame[12:14] == _IPV6 else None


def _read4(packet: bytes) -> _Packet | None:
    if len(packet) < _HEAD4 or packet[0] >> 4 != 4:
        return None
    head, (total, _, fragment) = (packet[0] & 15) * 4, struct.unpack_from("!HHH", packet, 2)
    if not _HEAD4 <= head <= total <= len(packet) or fragment & _FRAGMENT or checksum(packet[:head]):
        return None
    return _Packet(
        IPv4Address(packet[12:16]), IPv4Address(packet[16:20]), packet[9], packet[head:total], packet[:total]
    )


def _read6(packet: bytes) -> _Packet | None:
    if len(packet) < _HEAD6 or packet[0] >> 4 != 6:
        return None
    end = _HEAD6 + struct.unpack_from("!H", packet, 4)[0]
    if end > len(packet):
        return None
    return _Packet(
        IPv6Address(packet[8:24]), IPv6Address(packet[24:40]), packet[6], packet[_HEAD6:end], packet[:end]
    )


def _one_host(address: Address) -> bool:
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        return False
    return address != IPv4Address("255.255.255.255")


def _reply(packet: _Packet) -> bytes | None:
    """An ICMP message, with a checksum of 0."""
    six = packet.target.version == 6
    if packet.protocol == (icmpv6.PROTOCOL if six else _ICMP):
        request, reply = (128, 129) if six else (8, 0)
        if len(packet.body) < 8 or packet.body[:2] != bytes([request, 0]) or _is_damaged(packet):
            return None
        return struct.pack("!BBH", reply, 0, 0) + packet.body[4:]
    if packet.protocol != _UDP or len(packet.body) < 8:
        return None
    kind, code = (1, 4) if six else (3, 3)
    room = (_LARGEST6 - _HEAD6 if six else _LARGEST4 - _HEAD4) - 8
    return struct.pack("!BBHI", kind, code, 0, 0) + packet.whole[:room]


def _is_damaged(packet: _Packet) -> bool:
    """An ICMP message; IPv6's checksum covers the addresses."""
    if packet.target.version == 6:
        return icmpv6.summed(packet.source, packet.target, packet.body) != 0
    return checksum(packet.body) != 0


def _wrapped(packet: _Packet, message: bytes) -> bytes:
    """With its checksum and an IP header, back to the sender."""
    source, target = packet.target, packet.source
    if source.version == 6:
        return icmpv6.packet(source, target, message, _HOPS)
    size = _HEAD4 + len(message)
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, _DO_NOT_FRAGMENT, _HOPS, _ICMP, 0)
    return _summed(head + source.packed + target.packed, 10) + _summed(message, 2)


def _summed(data: bytes, at: int) -> bytes:
    """With its checksum at ``at``, where there are zeros."""
    return data[:at] + struct.pack("!H", checksum(data)) + data[at + 2 :]
