"""A frame with the header fields of another, for a switch that looks at these, and that every station drops. Pure.

The datapath of an Open vSwitch in the kernel asks ovs-vswitchd about the first frame of its kind, and frames behind that one pass as
soon as the answer is there: out of order. A frame like them, sent before, has the flow set up.

An IPv4 header's checksum is wrong. IPv6 comes from the unspecified address with hop limit 0. So no station takes such a frame, and no
router forwards it or complains (RFC 1812, section 5.2.2; RFC 4291, section 2.5.2).
"""

from __future__ import annotations

import struct
from typing import Final

from vmnet.internet_checksum import checksum

_TAG, _IPV4, _IPV6, _ICMPV6 = 0x8100, 0x0800, 0x86DD, 58
_IPV4_BYTES, _IPV6_BYTES = 20, 40
_PORTS_BYTES: Final = 4
_MINIMUM_FRAME_BYTES: Final = 60


def frame_like(header: bytes, to: bytes, source: bytes, vlan: int) -> bytes | None:
    """With the IP addresses and ports of ``header`` (from its Ethernet header on), between these MAC addresses (6 bytes each).

    ``vlan`` 0: without a tag. None for what is neither IPv4 nor IPv6, is no whole header, or is ICMPv6 (neighbour discovery).
    """
    return _frame(header, to, source, vlan, reverse=False)


def reply_like(header: bytes, source: bytes, vlan: int) -> bytes | None:
    """From ``source`` to the station that ``header`` comes from: IP addresses and ports are those of an answer. As above."""
    return _frame(header, header[6:12], source, vlan, reverse=True)


def _frame(header: bytes, to: bytes, source: bytes, vlan: int, reverse: bool) -> bytes | None:
    at = 16 if header[12:14] == struct.pack("!H", _TAG) else 12
    (ether_type,) = struct.unpack_from("!H", header, at) if len(header) >= at + 2 else (0,)
    make = {_IPV4: _ipv4, _IPV6: _ipv6}.get(ether_type)
    packet = make(header[at + 2 :], reverse) if make is not None else None
    if packet is None:
        return None
    tag = struct.pack("!HH", _TAG, vlan) if vlan else b""
    return (to + source + tag + header[at : at + 2] + packet).ljust(_MINIMUM_FRAME_BYTES, b"\0")


def _ipv4(packet: bytes, reverse: bool) -> bytes | None:
    if len(packet) < _IPV4_BYTES or packet[0] >> 4 != 4:
        return None
    options = (packet[0] & 0xF) * 4
    ports = _ports(packet[options:], reverse)
    head = bytearray(
        struct.pack("!BBHHHBBH", 0x45, packet[1], _IPV4_BYTES + len(ports), 0, 0, 1, packet[9], 0)
    )
    head += packet[16:20] + packet[12:16] if reverse else packet[12:20]
    struct.pack_into("!H", head, 10, checksum(bytes(head)) ^ 0xFFFF)
    return bytes(head) + ports


def _ipv6(packet: bytes, reverse: bool) -> bytes | None:
    if len(packet) < _IPV6_BYTES or packet[0] >> 4 != 6 or packet[6] == _ICMPV6:
        return None
    ports = _ports(packet[_IPV6_BYTES:], reverse)
    head = packet[:4] + struct.pack("!HBB", len(ports), packet[6], 0)
    return head + bytes(16) + (packet[8:24] if reverse else packet[24:40]) + ports


def _ports(payload: bytes, reverse: bool) -> bytes:
    ports = payload[:_PORTS_BYTES]
    if len(ports) < _PORTS_BYTES:
        return b""
    return ports[2:4] + ports[0:2] if reverse else ports
