"""Bundles: many changes that a switch makes as one (1.4, section 7.3.9; for 1.3 the extension EXT-230, which has the same bodies)."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from controller_bridge.openflow.wire import HEADER, V14, Message, Type

_ONF: Final = 0x4F4E4600
_EXTENSION: Final = {Type.BUNDLE_CONTROL: 2300, Type.BUNDLE_ADD_MESSAGE: 2301}
_CONTROL = struct.Struct("!IHH")
_EXPERIMENTER = struct.Struct("!II")
_ATOMIC_ORDERED: Final = 3


class Control(IntEnum):
    OPEN_REQUEST = 0
    OPEN_REPLY = 1
    CLOSE_REQUEST = 2
    CLOSE_REPLY = 3
    COMMIT_REQUEST = 4
    COMMIT_REPLY = 5
    DISCARD_REQUEST = 6
    DISCARD_REPLY = 7


def _head(version: int, kind: Type, xid: int, size: int) -> bytes:
    if version >= V14:
        return HEADER.pack(version, kind, HEADER.size + size, xid)
    length = HEADER.size + _EXPERIMENTER.size + size
    return HEADER.pack(version, Type.EXPERIMENTER, length, xid) + _EXPERIMENTER.pack(_ONF, _EXTENSION[kind])


def control(version: int, xid: int, bundle: int, what: Control) -> bytes:
    """Opens, commits or discards ``bundle``: all or nothing, in order."""
    body = _CONTROL.pack(bundle, what, _ATOMIC_ORDERED)
    return _head(version, Type.BUNDLE_CONTROL, xid, len(body)) + body


def add(version: int, xid: int, bundle: int, one: bytes) -> bytes:
    """``one``: a whole message with the same xid."""
    head = _head(version, Type.BUNDLE_ADD_MESSAGE, xid, _CONTROL.size + len(one))
    return head + _CONTROL.pack(bundle, 0, _ATOMIC_ORDERED) + one


def answer(reply: Message) -> tuple[int, Control] | None:
    """Which bundle it is about, and what was done; None for any other message."""
    body = reply.body
    if reply.type == Type.EXPERIMENTER:
        known = (_ONF, _EXTENSION[Type.BUNDLE_CONTROL])
        if len(body) < _EXPERIMENTER.size or _EXPERIMENTER.unpack_from(body) != known:
            return None
        body = body[_EXPERIMENTER.size :]
    elif reply.type != Type.BUNDLE_CONTROL:
        return None
    if len(body) < _CONTROL.size:
        return None
    bundle, what, _flags = _CONTROL.unpack_from(body)
    return (bundle, Control(what)) if what in set(Control) else None
