"""The probe's messages, encoded and decoded; pure. The layout is documented in ``guest/responder.c``: the two must agree.

Decoders return ``None`` for what is not such a message: a probe reads from a network, so it ignores what it does not know.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

UDP_PORT = 7007
TCP_PORT = 7008
MAGIC = 0x56
VERSION = 1
MAX_SEQ = 4 << 20
MIN_SIZE, MAX_SIZE = 64, 1514
MAX_RATE = 200_000
MAX_DURATION_MS = 3_600_000
NONE = 0xFFFFFFFF

DATA = struct.Struct("!BBIIIII")
HEAD = struct.Struct("!BBHQ")
TCP_HEAD = struct.Struct("!4sB3xIIQ")
TCP_TRAILER = struct.Struct("!8sQI")
DATA_LEN = DATA.size
_RANGE = struct.Struct("!II")
_REPORT = struct.Struct("!9I")


class Type(IntEnum):
    DATA = 1
    HELLO = 2
    HELLO_ACK = 3
    START = 4
    START_ACK = 5
    STOP = 6
    REPORT_REQ = 7
    REPORT = 8
    RANGES_REQ = 9
    RANGES = 10
    CLOSE = 11
    CLOSE_ACK = 12
    DIRTY = 13
    DIRTY_ACK = 14


class TcpMode(IntEnum):
    SINK = 0
    SOURCE = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What the guest counted of the client's stream, and how many packets it sent itself.

    ``longest_gap_us`` is by the guest's clock, which stands still while the VM is stopped. ``dropped``: by the guest's own kernel.
    """

    sent: int
    received: int
    duplicated: int
    reordered: int
    highest: int
    ignored: int
    longest_gap_us: int
    sending: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Control:
    """Any message but DATA: its type, session and undecoded body."""

    type: Type
    session: int
    body: bytes


def payload_bytes(size_bytes: int, ipv6: bool) -> int:
    """UDP payload of an Ethernet frame of that size (14-byte header counted, FCS not); at least a DATA header."""
    return max(DATA_LEN, size_bytes - (62 if ipv6 else 42))


def control(kind: Type, session: int, *words: int) -> bytes:
    """A control message with any number of 32-bit fields."""
    return HEAD.pack(MAGIC, kind, VERSION, session) + struct.pack(f"!{len(words)}I", *words)


def decode_control(message: bytes) -> Control | None:
    if len(message) < HEAD.size:
        return None
    magic, kind, version, session = HEAD.unpack_from(message)
    if magic != MAGIC or version != VERSION or not Type.DATA < kind <= Type.DIRTY_ACK:
        return None
    return Control(Type(kind), session, message[HEAD.size :])


def words(reply: Control, count: int) -> tuple[int, ...] | None:
    """The first ``count`` 32-bit fields of a reply."""
    if len(reply.body) < 4 * count:
        return None
    return struct.unpack_from(f"!{count}I", reply.body)


def decode_report(reply: Control) -> Report | None:
    if reply.type is not Type.REPORT or len(reply.body) < _REPORT.size:
        return None
    return Report(*_REPORT.unpack_from(reply.body))


def decode_ranges(reply: Control) -> tuple[int, list[tuple[int, int]]] | None:
    """The seq to ask again from (``NONE``: complete) and the missing ranges, ends included."""
    head = words(reply, 2)
    if reply.type is not Type.RANGES or head is None:
        return None
    following, count = head
    if len(reply.body) < 8 + count * _RANGE.size:
        return None
    return following, [_RANGE.unpack_from(reply.body, 8 + i * _RANGE.size) for i in range(count)]


def data(session: int, seq: int, length: int) -> bytes:
    """A client's DATA packet of ``length`` payload bytes."""
    return DATA.pack(MAGIC, Type.DATA, session & NONE, seq, 0, 0, 0).ljust(length, b"\0")


def iter_data(records: bytes | bytearray | memoryview) -> Iterator[tuple[int, int, int, int, int, int, int]]:
    """Packets back to back, each cut to ``DATA_LEN`` bytes: (magic, type, tag, seq, highest, received, hold_us)."""
    return DATA.iter_unpack(records)


def tcp_header(mode: TcpMode, rate_kbit: int = 0, duration_ms: int = 0, seed: int = 0) -> bytes:
    return TCP_HEAD.pack(b"VNT1", mode, rate_kbit, duration_ms, seed)


def decode_tcp_trailer(tail: bytes) -> tuple[int, int] | None:
    """(bytes, crc32) of a source's stream."""
    if len(tail) != TCP_TRAILER.size:
        return None
    mark, count, crc = TCP_TRAILER.unpack(tail)
    return (count, crc) if mark == b"VNETDONE" else None


def decode_tcp_answer(line: bytes) -> tuple[int, int] | None:
    """(bytes, crc32) as a sink counted them."""
    parts = line.split()
    if len(parts) != 2 or not line.endswith(b"\n"):
        return None
    try:
        return int(parts[0]), int(parts[1], 16)
    except ValueError:
        return None
