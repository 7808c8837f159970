"""Actions and instructions (sections 7.2.4 and 7.2.5), as their encodings: a flow compares and sends bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from controller_bridge.openflow.match import SIZES, Field
from vmnet.errors import PeerError

PORT_MAX: Final = 0xFFFFFF00
"""Numbers from here on are reserved ports."""
PORT_IN: Final = 0xFFFFFFF8
PORT_FLOOD: Final = 0xFFFFFFFB
PORT_CONTROLLER: Final = 0xFFFFFFFD
PORT_LOCAL: Final = 0xFFFFFFFE
PORT_ANY: Final = 0xFFFFFFFF
GROUP_ANY: Final = 0xFFFFFFFF
NO_BUFFER: Final = 0xFFFFFFFF
WHOLE_PACKET: Final = 0xFFFF

_OUTPUT, _GROUP, _SET_FIELD = 0, 22, 25
_GOTO_TABLE, _WRITE_ACTIONS, _APPLY_ACTIONS = 1, 3, 4
_BASIC = 0x8000  # OFPXMC_OPENFLOW_BASIC
_HEAD = struct.Struct("!HH")


@lru_cache(maxsize=1 << 12)
def output(port: int, most_bytes: int = WHOLE_PACKET) -> bytes:
    """``most_bytes``: of what goes to the controller."""
    return struct.pack("!HHIHxxxxxx", _OUTPUT, 16, port, most_bytes)


def group(number: int) -> bytes:
    return struct.pack("!HHI", _GROUP, 8, number)


def set_field(field: Field, value: bytes) -> bytes:
    """ValueError if the value has not the field's size."""
    if len(value) != SIZES[field]:
        raise ValueError(f"a value of {len(value)} bytes for {field.name}")
    length = 8 + len(value)
    padding = -length % 8
    return (
        struct.pack("!HHHBB", _SET_FIELD, length + padding, _BASIC, field << 1, len(value))
        + value
        + bytes(padding)
    )


def apply(actions: Iterable[bytes]) -> bytes:
    """The instruction that carries the actions out at once; no actions: no instruction, which drops."""
    body = b"".join(actions)
    return struct.pack("!HHxxxx", _APPLY_ACTIONS, 8 + len(body)) + body if body else b""


def goto_table(table: int) -> bytes:
    return struct.pack("!HHBxxx", _GOTO_TABLE, 8, table)


def outputs(instructions: bytes) -> list[int]:
    """The ports that ``instructions`` send to, in order. PeerError if they are malformed."""
    return [struct.unpack_from("!I", instructions, at)[0] for at in _output_ports(instructions)]


def sets(instructions: bytes, field: Field) -> bytes | None:
    """What ``instructions`` set that field to; None if they do not. PeerError if they are malformed."""
    return rewrites(instructions).get(field)


def rewrites(instructions: bytes) -> dict[int, bytes]:
    """Field -> value, of all whole fields that ``instructions`` set. PeerError if they are malformed."""
    found: dict[int, bytes] = {}
    for kind, begin, end in _parts(instructions, 0, len(instructions)):
        if kind in (_APPLY_ACTIONS, _WRITE_ACTIONS):
            for action, at, after in _parts(instructions, begin + 8, end):
                if action == _SET_FIELD:
                    space, field, size = struct.unpack_from("!HBB", instructions, at + 4)
                    if (
                        space == _BASIC
                        and not field & 1
                        and SIZES.get(field >> 1) == size
                        and after - at >= 8 + size
                    ):
                        found[field >> 1] = instructions[at + 8 : at + 8 + size]
    return found


def redirected(instructions: bytes, old: int, new: int) -> bytes:
    """The same, but what went out of port ``old`` goes out of ``new``. PeerError if they are malformed."""
    changed = bytearray(instructions)
    for at in _output_ports(instructions):
        if struct.unpack_from("!I", instructions, at)[0] == old:
            struct.pack_into("!I", changed, at, new)
    return bytes(changed)


def _output_ports(instructions: bytes) -> Iterator[int]:
    """Where each port stands that something is sent to."""
    for kind, begin, end in _parts(instructions, 0, len(instructions)):
        if kind in (_APPLY_ACTIONS, _WRITE_ACTIONS):
            for action, at, _after in _parts(instructions, begin + 8, end):
                if action == _OUTPUT:
                    yield at + 4


def _parts(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of each instruction or action."""
    while at < end:
        if end - at < 8:
            raise PeerError("a flow's instructions are cut off")
        kind, length = _HEAD.unpack_from(data, at)
        if length < 8 or at + length > end:
            raise PeerError("a flow's instructions with a part of impossible length")
        yield kind, at, at + length
        at += length
