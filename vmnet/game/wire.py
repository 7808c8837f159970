"""The game's messages, encoded and decoded; pure. The layout is documented in ``guest/game.c``: the two must agree.

Decoders return ``None`` for what is not such a message: whoever reads from a network ignores what it does not know.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

UDP_PORT = 7009
MAGIC = 0x47
VERSION = 1
MAX_PLAYERS = 32
NONE = 0xFFFFFFFF

_HEAD = struct.Struct("!BBHQ")
_INPUT = struct.Struct("!BBHQIbb")
_STATE = struct.Struct("!BBHQIIIIHH")
_PLACE = struct.Struct("!HHH")
MAX_STATE_BYTES = _STATE.size + MAX_PLAYERS * _PLACE.size


class Type(IntEnum):
    INPUT = 1
    STATE = 2
    LEAVE = 3
    FULL = 4


@dataclass(frozen=True, slots=True)
class Input:
    """A player wants to go on by (``dx``, ``dy``)."""

    player: int
    seq: int
    dx: int
    dy: int


@dataclass(frozen=True, slots=True)
class Place:
    slot: int
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class State:
    """What the server tells one player: everybody's place, and how far it has heard that player."""

    player: int
    tick: int
    acked: int
    """The newest input the server has; ``NONE``: it has none."""
    hold_us: int
    """The server's time from that input's arrival to this state; saturates."""
    accepted: int
    """How many inputs it has taken: repeated and overtaken ones are not among them."""
    slot: int
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Signal:
    """LEAVE of a player, FULL for one."""

    type: Type
    player: int


def encode_input(one: Input) -> bytes:
    return _INPUT.pack(MAGIC, Type.INPUT, VERSION, one.player, one.seq, one.dx, one.dy)


def encode_signal(one: Signal) -> bytes:
    return _HEAD.pack(MAGIC, one.type, VERSION, one.player)


def encode_state(one: State) -> bytes:
    head = _STATE.pack(
        MAGIC, Type.STATE, VERSION, one.player, one.tick, one.acked, one.hold_us, one.accepted, one.slot, len(one.places)
    )  # fmt: skip
    return head + b"".join(_PLACE.pack(place.slot, place.x, place.y) for place in one.places)


def decode_for_server(message: bytes) -> Input | Signal | None:
    """What a player may send: INPUT or LEAVE."""
    kind = _kind(message)
    if kind == Type.INPUT and len(message) == _INPUT.size:
        *_, player, seq, dx, dy = _INPUT.unpack(message)
        return Input(player, seq, dx, dy) if seq != NONE else None
    if kind == Type.LEAVE and len(message) == _HEAD.size:
        return Signal(Type.LEAVE, _HEAD.unpack(message)[3])
    return None


def decode_for_player(message: bytes) -> State | Signal | None:
    """What the server may send: STATE or FULL."""
    kind = _kind(message)
    if kind == Type.FULL and len(message) == _HEAD.size:
        return Signal(Type.FULL, _HEAD.unpack(message)[3])
    if kind != Type.STATE or len(message) < _STATE.size:
        return None
    *_, player, tick, acked, hold_us, accepted, slot, count = _STATE.unpack_from(message)
    if count > MAX_PLAYERS or len(message) != _STATE.size + count * _PLACE.size:
        return None
    places = tuple(Place(*one) for one in _PLACE.iter_unpack(message[_STATE.size :]))
    return State(player, tick, acked, hold_us, accepted, slot, places)


def _kind(message: bytes) -> int | None:
    if len(message) < _HEAD.size:
        return None
    magic, kind, version, _ = _HEAD.unpack_from(message)
    return int(kind) if (magic, version) == (MAGIC, VERSION) else None
