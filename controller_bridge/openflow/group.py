"""Groups (section 7.3.4.2): several ways out that many flows share."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

from controller_bridge.openflow.action import GROUP_ANY, PORT_ANY
from controller_bridge.openflow.wire import Type, message

_HEAD = struct.Struct("!HBxI")
_BUCKET = struct.Struct("!HHIIxxxx")


class Command(IntEnum):
    ADD = 0
    MODIFY = 1
    DELETE = 2


class Kind(IntEnum):
    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FAST_FAILOVER = 3


def bucket(actions: Sequence[bytes], weight: int = 0, watch_port: int = PORT_ANY) -> bytes:
    listed = b"".join(actions)
    return _BUCKET.pack(_BUCKET.size + len(listed), weight, watch_port, GROUP_ANY) + listed


def group_mod(
    version: int,
    xid: int,
    command: Command,
    number: int,
    kind: Kind = Kind.INDIRECT,
    buckets: Sequence[bytes] = (),
) -> bytes:
    return message(version, Type.GROUP_MOD, xid, _HEAD.pack(command, kind, number) + b"".join(buckets))
