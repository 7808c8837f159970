"""An IP packet in an Ethernet frame, read with every length checked: a VM may send anything. Pure.

What the kernel shows of a frame on a tap may lack its transport checksum: a guest with checksum offload leaves there the sum of the
pseudo-header alone (CHECKSUM_PARTIAL) and expects the device to complete it. A frame that is kept to be sent again has no such device.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_ETHERNET_BYTES, _IPV4_BYTES, _IPV6_BYTES, UDP_BYTES = 14, 20, 40, 8
_IPV4, _IPV6 = 0x0800, 0x86DD
UDP = 17
MOST_FRAME_BYTES = 2048
"""Longer ones are none of ours; with so many sessions, this bounds what a VM can make us remember."""


@dataclass(frozen=True)
class Packet:
    """``data``: the frame without what follows the IP packet. Addresses are packed (4 or 16 bytes)."""

    data: bytes
    source_mac: bytes
    source: bytes
    destination: bytes
    protocol: int
    hop_limit: int
    at: int
    """Where the IP payload starts in ``data``."""

    @property
    def payload(self) -> bytes:
        return self.data[self.at :]


def read(frame: bytes) -> Packet | None:
    """None for all but a whole, unfragmented IPv4 or IPv6 packet without options or extension headers, untagged."""
    if not _ETHERNET_BYTES < len(frame) <= MOST_FRAME_BYTES:
        return None
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    if ethertype == _IPV4:
        return _ipv4(frame)
    return _ipv6(frame) if ethertype == _IPV6 else None


def _ipv4(frame: bytes) -> Packet | None:
    at = _ETHERNET_BYTES + _IPV4_BYTES
    if len(frame) < at:
        return None
    header = frame[_ETHERNET_BYTES:at]
    version, _tos, total_bytes, _id, fragment, ttl, protocol, _sum, source, destination = struct.unpack(
        "!BBHHHBBH4s4s", header
    )
    end = _ETHERNET_BYTES + total_bytes
    # 0x3FFF: more fragments, or not the first (RFC 791); a sum of ones is a right one (RFC 1071)
    if version != 0x45 or fragment & 0x3FFF or not at <= end <= len(frame) or ones_sum(header) != 0xFFFF:
        return None
    return Packet(frame[:end], frame[6:12], source, destination, protocol, ttl, at)


def _ipv6(frame: bytes) -> Packet | None:
    at = _ETHERNET_BYTES + _IPV6_BYTES
    if len(frame) < at:
        return None
    version, payload_bytes, protocol, hop_limit, source, destination = struct.unpack_from(
        "!IHBB16s16s", frame, _ETHERNET_BYTES
    )
    end = at + payload_bytes
    if version >> 28 != 6 or end > len(frame):
        return None
    return Packet(frame[:end], frame[6:12], source, destination, protocol, hop_limit, at)


def udp_ports(packet: Packet) -> tuple[int, int] | None:
    """Source and destination port; None unless it is UDP and fills the IP packet, as all daemons send it."""
    if packet.protocol != UDP or len(packet.payload) < UDP_BYTES:
        return None
    source, destination, length, _sum = struct.unpack_from("!HHHH", packet.data, packet.at)
    return (source, destination) if length == len(packet.payload) else None


def udp_is_sound(packet: Packet) -> bool:
    """The checksum is right, or none (IPv4 only), or the pseudo-header's alone: left to a device to complete."""
    (given,) = struct.unpack_from("!H", packet.data, packet.at + 6)
    if given == 0:
        return len(packet.source) == 4
    pseudo = ones_sum(_pseudo_header(packet))
    return given == pseudo or _folded(pseudo + ones_sum(packet.payload)) == 0xFFFF


def with_udp_payload(packet: Packet, payload: bytes) -> bytes:
    """The frame with another UDP payload of the same length, and a checksum that is right; an IPv4 checksum of none stays none.

    Summed anew and not adjusted (RFC 1624): an adjusted partial sum would stay partial.
    """
    start = packet.at + UDP_BYTES
    (given,) = struct.unpack_from("!H", packet.data, packet.at + 6)
    header = packet.data[packet.at : packet.at + 6] + b"\0\0"
    total = 0xFFFF - _folded(ones_sum(_pseudo_header(packet)) + ones_sum(header + payload)) or 0xFFFF
    return packet.data[: start - 2] + struct.pack("!H", total if given else 0) + payload


def _pseudo_header(packet: Packet) -> bytes:
    """RFC 768, RFC 8200 section 8.1: their sums do not differ by how wide the length is."""
    return packet.source + packet.destination + struct.pack("!HH", len(packet.payload), packet.protocol)


def ones_sum(data: bytes) -> int:
    """One's complement sum of 16-bit words (RFC 1071), not complemented."""
    padded = data + b"\0" * (len(data) % 2)
    return _folded(sum(struct.unpack(f"!{len(padded) // 2}H", padded)))


def _folded(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
