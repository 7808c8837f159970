"""A frame that a switch treats as an answer to one with a given header, and that every station drops. Pure.

The datapath of an Open vSwitch in the kernel has no flow for what a guest sends from its new place. The first frame goes to
ovs-vswitchd, and those behind it pass as soon as the flow is there: out of order. A frame like them sets the flow up before.
"""

from __future__ import annotations

import struct
from typing import Final

from vmnet.internet_checksum import checksum

_TAG, _IPV4, _IPV6, _ICMPV6 = 0x8100, 0x0800, 0x86DD, 58
_IPV4_BYTES, _IPV6_BYTES = 20, 40
_PORTS_BYTES: Final = 4
_MINIMUM_FRAME_BYTES: Final = 60


def reply(header: bytes, source: bytes, vlan: int) -> bytes | None:
    """From ``source`` (6 bytes) to the station that ``header`` (from its Ethernet header on) comes from; ``vlan`` 0: without a tag.

    Addresses and ports are those of an answer. An IPv4 header's checksum is wrong. IPv6 comes from the unspecified address with
    hop limit 0. So no station takes it, and no router forwards it or complains (RFC 1812, section 5.2.2; RFC 4291, section 2.5.2).
    None for what is neither, is no whole header, or belongs to neighbour discovery.
    """
    at = 16 if header[12:14] == struct.pack("!H", _TAG) else 12
    (ether_type,) = struct.unpack_from("!H", header, at) if len(header) >= at + 2 else (0,)
    answer = {_IPV4: _ipv4, _IPV6: _ipv6}.get(ether_type)
    packet = answer(header[at + 2 :]) if answer is not None else None
    if packet is None:
        return None
    tag = struct.pack("!HH", _TAG, vlan) if vlan else b""
    return (header[6:12] + source + tag + header[at : at + 2] + packet).ljust(_MINIMUM_FRAME_BYTES, b"\0")


def _ipv4(packet: bytes) -> bytes | None:
    if len(packet) < _IPV4_BYTES or packet[0] >> 4 != 4:
        return None
    options = (packet[0] & 0xF) * 4
    ports = _swapped(packet[options : options + _PORTS_BYTES])
    head = bytearray(
        struct.pack("!BBHHHBBH", 0x45, packet[1], _IPV4_BYTES + len(ports), 0, 0, 1, packet[9], 0)
    )
    head += packet[16:20] + packet[12:16]
    struct.pack_into("!H", head, 10, checksum(bytes(head)) ^ 0xFFFF)
    return bytes(head) + ports


def _ipv6(packet: bytes) -> bytes | None:
    if len(packet) < _IPV6_BYTES or packet[0] >> 4 != 6 or packet[6] == _ICMPV6:
        return None
    ports = _swapped(packet[_IPV6_BYTES : _IPV6_BYTES + _PORTS_BYTES])
    head = packet[:4] + struct.pack("!HBB", len(ports), packet[6], 0)
    return head + bytes(16) + packet[8:24] + ports


def _swapped(ports: bytes) -> bytes:
    return ports[2:4] + ports[0:2] if len(ports) == _PORTS_BYTES else b""
