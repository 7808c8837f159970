"""Packets that a switch hands to its controller, and that the controller sends out of a switch (sections 7.4.1 and 7.3.7)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from controller_bridge.openflow.action import NO_BUFFER, PORT_CONTROLLER
from controller_bridge.openflow.match import Field, unpack_match
from controller_bridge.openflow.wire import HEADER, Message, Type
from vmnet.errors import PeerError

_IN = struct.Struct("!IHBBQ")
_OUT = struct.Struct("!IIHxxxxxx")
_IN_PORT = struct.Struct("!HHIIxxxx")
_ONLY_IN_PORT = (1, 12, 0x80000004)
"""Match type, length and OXM header of a match with nothing but the port: what switches send nearly always."""


class PacketIn(NamedTuple):
    """``total_bytes``: of the packet; ``data`` may be its beginning only."""

    buffer: int
    total_bytes: int
    reason: int
    table: int
    cookie: int
    in_port: int
    data: bytes


def packet_in(one: Message) -> PacketIn:
    """PeerError if it is malformed."""
    body = one.body
    if len(body) < _IN.size + _IN_PORT.size + 2:
        raise PeerError("a packet-in is cut off")
    buffer, total, reason, table, cookie = _IN.unpack_from(body)
    kind, length, header, port = _IN_PORT.unpack_from(body, _IN.size)
    if (kind, length, header) == _ONLY_IN_PORT:
        at = _IN.size + _IN_PORT.size
    else:
        match, at = unpack_match(body, _IN.size)
        value = match.get(Field.IN_PORT)
        if value is None:
            raise PeerError("a packet-in that does not say its port")
        port = int.from_bytes(value, "big")
    return PacketIn(buffer, total, reason, table, cookie, port, body[at + 2 :])


def packet_out(
    version: int,
    xid: int,
    actions: Iterable[bytes],
    data: bytes,
    in_port: int = PORT_CONTROLLER,
    buffer: int = NO_BUFFER,
) -> bytes:
    """``data`` by ``actions``; with a ``buffer`` of the switch's, the packet that it kept there."""
    listed = b"".join(actions)
    body = _OUT.pack(buffer, in_port, len(listed)) + listed + data
    return HEADER.pack(version, Type.PACKET_OUT, HEADER.size + len(body), xid) + body
