"""The first words between switch and controller (sections 6.3.1 and 7.3.1), and what a switch says it is."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller_bridge.openflow.wire import Message, Type, message
from vmnet.errors import PeerError

_BITMAP: Final = 1
_FEATURES = struct.Struct("!QIBBxxII")
_ERROR = struct.Struct("!HH")


def hello(versions: Iterable[int], xid: int = 0) -> bytes:
    """Says which versions are spoken; its own header bears the highest."""
    spoken = sorted(versions)
    bitmap = sum(1 << one for one in spoken)
    return message(spoken[-1], Type.HELLO, xid, struct.pack("!HHI", _BITMAP, 8, bitmap))


def negotiate(theirs: Message, ours: Iterable[int]) -> int:
    """The version that both speak from now on. PeerError if there is none, or theirs is no hello."""
    if theirs.type != Type.HELLO:
        raise PeerError("the switch did not begin with OpenFlow's hello")
    bitmap = _bitmap(theirs.body)
    spoken = set(ours)
    common = (
        {one for one in spoken if bitmap >> one & 1}
        if bitmap
        else {min(theirs.version, max(spoken))} & spoken
    )
    if not common:
        raise PeerError(
            f"the switch speaks no OpenFlow version of ours (its highest is 0x{theirs.version:02x})"
        )
    return max(common)


def _bitmap(body: bytes) -> int:
    """0 if there is none (before 1.3.1)."""
    at = 0
    while len(body) - at >= 8:
        kind, length = struct.unpack_from("!HH", body, at)
        if length < 4:
            break
        if kind == _BITMAP:
            return int(struct.unpack_from("!I", body, at + 4)[0])
        at += length + -length % 8
    return 0


@dataclass(frozen=True)
class Features:
    """``datapath``: the switch's 64-bit identifier; ``tables``: how many it has."""

    datapath: int
    buffers: int
    tables: int
    auxiliary: int
    capabilities: int


def features(reply: Message) -> Features:
    """PeerError if it is too short."""
    if len(reply.body) < _FEATURES.size:
        raise PeerError("the switch's features are cut off")
    datapath, buffers, tables, auxiliary, capabilities, _reserved = _FEATURES.unpack_from(reply.body)
    return Features(datapath, buffers, tables, auxiliary, capabilities)


_KINDS: Final = {
    0: "hello failed",
    1: "bad request",
    2: "bad action",
    3: "bad instruction",
    4: "bad match",
    5: "flow mod failed",
    6: "group mod failed",
    7: "port mod failed",
    8: "table mod failed",
    11: "role request failed",
    13: "table features failed",
    17: "bundle failed",
    0xFFFF: "experimenter's",
}
_TABLE_FULL: Final = (5, 1)
_CODES: Final = {
    (1, 0): "bad version", (1, 1): "bad type", (1, 2): "bad multipart", (1, 5): "permission denied", (1, 9): "is slave",
    (2, 0): "bad type", (2, 4): "bad output port", (2, 9): "bad output group",
    (4, 6): "bad field", (4, 7): "bad value", (4, 9): "bad prerequisite", (4, 10): "duplicate field",
    (5, 0): "unknown", (5, 1): "table full", (5, 2): "bad table id", (5, 3): "overlap", (5, 4): "permission denied",
    (6, 0): "group exists", (6, 3): "out of groups", (6, 8): "unknown group",
    (17, 4): "bundle is closed", (17, 6): "message is unsupported", (17, 12): "a message in it failed",
}  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """What a switch did not do (section 7.5): ``xid`` of the message it answers."""

    xid: int
    kind: int
    code: int

    @property
    def table_full(self) -> bool:
        return (self.kind, self.code) == _TABLE_FULL

    def __str__(self) -> str:
        what = _CODES.get((self.kind, self.code), f"code {self.code}")
        return f"{_KINDS.get(self.kind, f'error type {self.kind}')}: {what}"


def refusal(error: Message) -> Refusal:
    """PeerError if it is too short."""
    if len(error.body) < _ERROR.size:
        raise PeerError("the switch's error is cut off")
    return Refusal(error.xid, *_ERROR.unpack_from(error.body))
