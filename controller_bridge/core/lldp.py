"""Which ports are wired to each other, found out by LLDP frames that only we can make (IEEE 802.1AB; signed by HMAC-SHA256). Pure.

A VM that sends LLDP of its own, or repeats one of ours somewhere else, makes no link: the signature covers where and when a frame was
sent, a frame is good for some seconds, and a port that has a VM behind it never saw one of that port's peer.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final, NamedTuple

ETHER_TYPE: Final = 0x88CC
GROUP: Final = bytes.fromhex("0180c200000e")
"""Nearest bridge: bridges that are no OpenFlow switches do not forward it."""
GOOD_S: Final = 5.0
_SOURCE: Final = bytes.fromhex("02766d6c6c64")
_ORGANIZATION: Final = b"\x02\x76\x6d\x01"
"""An organizationally specific TLV: locally administered OUI, subtype 1."""
_OURS = struct.Struct("!QIQ32s")
"""datapath, port, time in ms, signature."""
_TTL_S: Final = 5


class Origin(NamedTuple):
    """Where a frame was sent from: a switch's datapath identifier and its port."""

    datapath: int
    port: int


class Hello(NamedTuple):
    """One of ours. ``sent_ms`` by our own clock."""

    origin: Origin
    sent_ms: int


def _tlv(kind: int, body: bytes) -> bytes:
    return struct.pack("!H", kind << 9 | len(body)) + body


def _sign(key: bytes, head: bytes) -> bytes:
    return hmac.new(key, head, hashlib.sha256).digest()


def clock_ms(now_s: float) -> int:
    """What a hello says of the time."""
    return int(now_s * 1e3)


def frame(origin: Origin, key: bytes, now_s: float) -> bytes:
    """To be sent out of that port. ``now_s`` of our own clock, whatever it counts from."""
    head = struct.pack("!QIQ", origin.datapath, origin.port, clock_ms(now_s))
    tlvs = (
        _tlv(1, b"\x07" + f"dpid:{origin.datapath:016x}".encode()),
        _tlv(2, b"\x07" + str(origin.port).encode()),
        _tlv(3, struct.pack("!H", _TTL_S)),
        _tlv(127, _ORGANIZATION + head + _sign(key, head)),
        _tlv(0, b""),
    )
    return GROUP + _SOURCE + struct.pack("!H", ETHER_TYPE) + b"".join(tlvs)


def read(data: bytes, key: bytes, now_s: float) -> Hello | None:
    """Where it was sent from, and when; None if it is not one of ours, or too old."""
    if data[12:14] != struct.pack("!H", ETHER_TYPE):
        return None
    at = 14
    while len(data) - at >= 2:
        (head,) = struct.unpack_from("!H", data, at)
        kind, length = head >> 9, head & 0x1FF
        body = data[at + 2 : at + 2 + length]
        if kind == 127 and body[:4] == _ORGANIZATION and len(body) == 4 + _OURS.size:
            return _checked(body[4:], key, now_s)
        if kind == 0 or len(body) < length:
            return None
        at += 2 + length
    return None


def _checked(ours: bytes, key: bytes, now_s: float) -> Hello | None:
    datapath, port, sent_ms, signature = _OURS.unpack(ours)
    genuine = hmac.compare_digest(signature, _sign(key, ours[:20]))
    good = genuine and 0 <= now_s - sent_ms / 1e3 <= GOOD_S
    return Hello(Origin(datapath, port), sent_ms) if good else None
