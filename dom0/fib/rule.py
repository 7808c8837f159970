"""A router's policy rules as the namespace's kernel is told of them (linux/fib_rules.h). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dom0.fib import marks
from dom0.fib.message import (
    CREATE,
    DELRULE,
    EXCLUSIVE,
    NEWRULE,
    REQUEST,
    WIDTH_BYTES,
    MalformedError,
    RefusedMessageError,
    attribute,
    body_of,
    known,
    message,
)

_RULE = struct.Struct("=BBBBBBBBI")
_DST, _SRC, _SUPPRESS_GROUP, _SUPPRESS_LENGTH, _PROTOCOL = 1, 2, 13, 14, 21
# input, goto, priority, mark, mask, flow, tunnel id, group, length, table, output, l3mdev, uids, IP protocol, ports
_LENGTHS = {
    3: -1,
    4: 4,
    6: 4,
    10: 4,
    16: 4,
    11: 4,
    12: 8,
    13: 4,
    14: 4,
    15: 4,
    17: -1,
    19: 1,
    20: 8,
    21: 1,
    22: 1,
    23: 4,
    24: 4,
}
_DROPPED = frozenset({18})
_NAMES = (3, 17)
_ACTIONS = frozenset({0, 1, 2, 3, 6, 7, 8})
_INVERT = 0x2
_NONE = b"\xff\xff\xff\xff"
_KERNEL = 2
_NAME_BYTES = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """``key``: all of it but who made it; ``copied``: by us; ``ours``: it may be swept (made by us, or by the kernel itself)."""

    key: bytes
    install: bytes
    remove: bytes
    copied: bool
    ours: bool
    names: tuple[str, ...] = ()
    """Of the interfaces that packets must come from or leave by."""


def parse(data: bytes) -> Rule:
    """Raises MalformedError, RefusedMessageError."""
    body_of(data, _RULE.size)
    family, dst, src, tos, table, _one, _two, action, flags = _RULE.unpack_from(data, 16)
    if family not in WIDTH_BYTES or action not in _ACTIONS:
        raise RefusedMessageError(f"rule of family {family}, action {action}")
    width = WIDTH_BYTES[family]
    found = known(data, 16 + _RULE.size, {**_LENGTHS, _DST: width, _SRC: width}, _DROPPED)
    if max(dst, src) > 8 * width or any(len(found.get(name, b"")) > _NAME_BYTES for name in _NAMES):
        raise MalformedError("a rule with a prefix or a name too long")
    protocol = found.pop(_PROTOCOL, b"\0")[0]
    for kind in (_SUPPRESS_GROUP, _SUPPRESS_LENGTH):
        if found.get(kind) == _NONE:
            del found[kind]
    fixed = _RULE.pack(family, dst, src, tos, table, 0, 0, action, flags & _INVERT)
    which = fixed + b"".join(attribute(kind, found[kind]) for kind in sorted(found))
    mark = attribute(_PROTOCOL, bytes([marks.RULE_MARK]))
    return Rule(
        b"P" + which,
        message(NEWRULE, REQUEST | CREATE | EXCLUSIVE, which + mark),
        message(DELRULE, REQUEST, which),
        protocol == marks.RULE_MARK,
        protocol in (_KERNEL, marks.RULE_MARK),
        tuple(found[kind].rstrip(b"\0").decode("ascii", "replace") for kind in _NAMES if kind in found),
    )
