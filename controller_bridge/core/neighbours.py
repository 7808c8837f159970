"""ARP and neighbour discovery: what a station says of itself, whom it asks for, and what it is answered (RFC 826, RFC 4861). Pure."""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from controller_bridge.core.hosts import Address
from vmnet import icmpv6

BROADCAST: Final = b"\xff" * 6
_ARP, _IPV6 = b"\x08\x06", b"\x86\xdd"
_ARP_BODY = struct.Struct("!6sH6s4s6s4s")
_ARP_HEAD: Final = struct.pack("!HHBB", 1, 0x0800, 6, 4)
_SOLICITATION, _ADVERTISEMENT = 135, 136
_ROUTER, _SOLICITED, _OVERRIDE = 0x80000000, 0x40000000, 0x20000000
_TARGET_LINK: Final = 2
_NONE4, _NONE6 = IPv4Address(0), IPv6Address(0)
# the same few addresses are spoken of again and again
_v4 = lru_cache(maxsize=1 << 14)(IPv4Address)
_v6 = lru_cache(maxsize=1 << 14)(IPv6Address)


class Said(NamedTuple):
    """``owns``: what the sender says is its own address. ``asks``: whose MAC address it wants; ``asker``: from which address."""

    owns: Address | None = None
    asks: Address | None = None
    asker: Address | None = None


def read(frame: bytes) -> Said | None:
    """None if it is neither ARP nor neighbour discovery, or malformed. The sender's MAC address is the frame's, or it is a lie."""
    if frame[12:14] == _ARP:
        return _read_arp(frame)
    if frame[12:14] == _IPV6 and len(frame) >= 78 and frame[20] == 58 and frame[21] == 255:
        return _read_discovery(frame)
    return None


def _read_arp(frame: bytes) -> Said | None:
    if len(frame) < 14 + _ARP_BODY.size:
        return None
    head, operation, sender, own, _target, asked = _ARP_BODY.unpack_from(frame, 14)
    if head != _ARP_HEAD or sender != frame[6:12] or operation not in (1, 2):
        return None
    source = _v4(own)
    asks = _v4(asked) if operation == 1 and asked != own else None
    return Said(None if source == _NONE4 else source, asks, source)


def _read_discovery(frame: bytes) -> Said | None:
    kind, target, source = frame[54], _v6(frame[62:78]), _v6(frame[22:38])
    if kind == _SOLICITATION:
        # without a source it asks whether its own new address is taken (RFC 4862)
        return Said(None if source == _NONE6 else source, target, source)
    return Said(target) if kind == _ADVERTISEMENT else None


def answer(asked: Address, owner: bytes, asker_mac: bytes, asker: Address, may_route: bool = False) -> bytes:
    """That ``owner`` has the address ``asked``, to who asked for it. ``may_route``: whether it is a router is not known here.

    Then an advertisement says that it is one: a host that is called a router loses nothing by it, a router that is called none would
    be dropped from its neighbours' default routes (RFC 4861, section 7.2.5).
    """
    if isinstance(asked, IPv4Address):
        body = _ARP_BODY.pack(_ARP_HEAD, 2, owner, asked.packed, asker_mac, asker.packed)
        return (asker_mac + owner + _ARP + body).ljust(60, b"\0")
    nobody = asker == IPv6Address(0)
    to = IPv6Address("ff02::1") if nobody else asker
    mac = bytes.fromhex("333300000001") if nobody else asker_mac
    flags = _OVERRIDE | (0 if nobody else _SOLICITED) | (_ROUTER if may_route else 0)
    body = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, flags) + asked.packed
    return _discovery(mac, owner, asked, to, body + struct.pack("!BB", _TARGET_LINK, 1) + owner)


def question(wanted: Address, asker_mac: bytes, asker: Address, to: bytes = BROADCAST) -> bytes:
    """Who has it? From an address of ours; ``to``: one station only, to see whether it is there."""
    if isinstance(wanted, IPv4Address):
        body = _ARP_BODY.pack(_ARP_HEAD, 1, asker_mac, asker.packed, bytes(6), wanted.packed)
        return (to + asker_mac + _ARP + body).ljust(60, b"\0")
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + wanted.packed[13:])
    mac = b"\x33\x33" + group.packed[12:] if to == BROADCAST else to
    body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + wanted.packed + struct.pack("!BB", 1, 1) + asker_mac
    return _discovery(mac, asker_mac, asker, group, body)


def echo_request(to: bytes, asker_mac: bytes) -> bytes:
    """To a station of which no address is known (RFC 4443, 4.1): with IPv6 it answers all nodes' address, or asks for the sender's."""
    eui = bytes([asker_mac[0] ^ 2]) + asker_mac[1:3] + b"\xff\xfe" + asker_mac[3:]  # RFC 4291, appendix A
    source = IPv6Address(b"\xfe\x80" + bytes(6) + eui)
    return _discovery(
        to, asker_mac, source, IPv6Address("ff02::1"), struct.pack("!BBHHH", 128, 0, 0, 0x766D, 0)
    )


def _discovery(to_mac: bytes, from_mac: bytes, source: Address, to: Address, body: bytes) -> bytes:
    return to_mac + from_mac + _IPV6 + icmpv6.packet(source, to, body, 255)


def destination(frame: bytes) -> Address | None:
    """Of an IP packet."""
    if frame[12:14] == b"\x08\x00" and len(frame) >= 34:
        return IPv4Address(frame[30:34])
    if frame[12:14] == _IPV6 and len(frame) >= 54:
        return IPv6Address(frame[38:54])
    return None


def unpack(packed: bytes) -> Address:
    """4 or 16 bytes."""
    return ip_address(packed)
