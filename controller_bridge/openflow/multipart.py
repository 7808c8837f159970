"""Multipart messages (section 7.3.5): what a switch is asked, and the ports it has."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from controller_bridge.openflow.wire import V14, Message, Type, message
from vmnet.errors import PeerError

_HEAD = struct.Struct("!HHxxxx")
_MORE: Final = 1
_PORT13 = struct.Struct("!Ixxxx6sxx16sII24x")
_PORT14 = struct.Struct("!IHxx6sxx16sII")
_TABLE = struct.Struct("!BxxxIQQ")
LINK_DOWN: Final = 1
"""Bit of a port's state."""


class Part(IntEnum):
    """ofp_multipart_type."""

    DESC = 0
    FLOW = 1
    TABLE = 3
    PORT_STATS = 4
    GROUP_DESC = 7
    PORT_DESC = 13


def request(version: int, xid: int, part: Part, body: bytes = b"") -> bytes:
    return message(version, Type.MULTIPART_REQUEST, xid, _HEAD.pack(part, 0) + body)


def reply(one: Message) -> tuple[int, bool, bytes]:
    """Part, whether more follow, and what is in it. PeerError if it is cut off."""
    if len(one.body) < _HEAD.size:
        raise PeerError("a multipart reply is cut off")
    part, flags = _HEAD.unpack_from(one.body)
    return part, bool(flags & _MORE), one.body[_HEAD.size :]


def active_in(entries: bytes, table: int) -> int:
    """How many entries ``table`` has, of an OFPMP_TABLE reply. PeerError if it does not say."""
    for at in range(0, len(entries) - _TABLE.size + 1, _TABLE.size):
        number, active, _looked_up, _matched = _TABLE.unpack_from(entries, at)
        if number == table:
            return int(active)
    raise PeerError(f"the switch does not say how many entries table {table} has")


class Port(NamedTuple):
    """``state``: bits of ofp_port_state; ``live`` is whether its link is up."""

    number: int
    mac: bytes
    name: str
    config: int
    state: int

    @property
    def live(self) -> bool:
        return not (self.state & LINK_DOWN or self.config & LINK_DOWN)


def ports_in(version: int, entries: bytes) -> Iterator[Port]:
    """Of an OFPMP_PORT_DESC reply, or a port status's ofp_port. PeerError if it is malformed."""
    at = 0
    while at < len(entries):
        port, length = port_at(version, entries, at)
        yield port
        at += length


def port_at(version: int, data: bytes, at: int = 0) -> tuple[Port, int]:
    """And how many bytes it takes."""
    layout = _PORT14 if version >= V14 else _PORT13
    if len(data) - at < layout.size:
        raise PeerError("a port's description is cut off")
    if version >= V14:
        number, length, mac, name, config, state = _PORT14.unpack_from(data, at)
        if length < _PORT14.size or at + length > len(data):
            raise PeerError("a port's description of impossible length")
    else:
        (number, mac, name, config, state), length = _PORT13.unpack_from(data, at), _PORT13.size
    text = name.split(b"\0", 1)[0].decode("ascii", "replace")
    return Port(
        number, mac, "".join(one if one.isprintable() else "?" for one in text), config, state
    ), length
