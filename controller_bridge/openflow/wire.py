"""OpenFlow on the wire: message types, the header, and the framing of a byte stream. Sans-IO.

Sections are those of the OpenFlow Switch Specification 1.3.5; what is 1.4 only says so (1.4.1).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from vmnet.errors import PeerError

HEADER: Final = struct.Struct("!BBHI")
"""version, type, length with this header, xid (section 7.1.1)."""
V13: Final = 4
V14: Final = 5
VERSIONS: Final = {V13: "1.3", V14: "1.4"}
MOST_BYTES: Final = 0xFFFF
_LEAST: Final = HEADER.size


class Type(IntEnum):
    """ofp_type, those that vmnet sends or meets; the bundles' are 1.4."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    EXPERIMENTER = 4
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    SET_CONFIG = 9
    PACKET_IN = 10
    FLOW_REMOVED = 11
    PORT_STATUS = 12
    PACKET_OUT = 13
    FLOW_MOD = 14
    GROUP_MOD = 15
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    ROLE_REQUEST = 24
    ROLE_REPLY = 25
    BUNDLE_CONTROL = 33
    BUNDLE_ADD_MESSAGE = 34


class Message(NamedTuple):
    """``body`` is what follows the header."""

    version: int
    type: int
    xid: int
    body: bytes


def message(version: int, kind: int, xid: int, body: bytes = b"") -> bytes:
    """A whole message."""
    return HEADER.pack(version, kind, _LEAST + len(body), xid) + body


class Framer:
    """Cuts a byte stream into messages; ``rest`` is the one of which only a part is here, less than 64 KiB."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """Those that are complete now, in order. PeerError if a length makes no sense: nothing after it can be told."""
        buffer = self.rest + data if self.rest else data
        found: list[Message] = []
        at, end = 0, len(buffer)
        while end - at >= _LEAST:
            version, kind, length, xid = HEADER.unpack_from(buffer, at)
            if length < _LEAST:
                raise PeerError(f"an OpenFlow message of {length} bytes, less than its own header")
            after = at + length
            if after > end:
                break
            found.append(Message(version, kind, xid, buffer[at + _LEAST : after]))
            at = after
        self.rest = buffer[at:]
        return found
