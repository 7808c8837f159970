"""The bulk path: a message is looked at in full once, and after that others that differ only in their destination are cut and pasted.

A router's table has a hundred thousand destinations and a few dozen ways to them. What is remembered of a route are all its bytes but
the destination (and the sequence number), so equal bytes have been checked to the last attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dom0.fib.message import ATTRIBUTE, DELROUTE, NEWROUTE, U32, MalformedError, Patched, RefusedMessageError
from dom0.fib.route import DST, TABLE

_DST_WIDTHS = {ATTRIBUTE.pack(4 + width, DST): width for width in (4, 16)}
_TABLE_FIRST = ATTRIBUTE.pack(8, TABLE)
_MOST, _LONGEST_BYTES = 8192, 1024
_ROUTES = (NEWROUTE, DELROUTE)


@dataclass(slots=True)
class Batch:
    """Messages for the kernel, what each is about, and which are deletions (by key, the last one's place)."""

    messages: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    deletions: dict[bytes, int] = field(default_factory=dict)

    def add(self, message: bytes, key: bytes, new: bool) -> None:
        """A deletion is forgotten when what it deletes is made again: the kernel replaces without a gap."""
        if new:
            before = self.deletions.pop(key, None) if self.deletions else None
            if before is not None:
                self.messages[before] = b""
        else:
            self.deletions[key] = len(self.messages)
        self.messages.append(message)
        self.keys.append(key)


@dataclass(frozen=True, slots=True)
class _Template:
    head: bytes
    tail: bytes
    key: bytes
    new: bool


class Templates:
    """``patch``: a whole message -> what the kernel is told, None for nothing. ``refused`` counts what it would not have."""

    def __init__(self, patch: Callable[[bytes], Patched | None]) -> None:
        self._patch = patch
        self._known: dict[bytes, _Template | None] = {}
        self.refused = 0
        self.last_refusal = ""

    def feed(self, messages: Sequence[bytes], batch: Batch) -> None:
        """Adds to ``batch``. Raises MalformedError."""
        known = self._known
        for one in messages:
            at = 32
            width = _DST_WIDTHS.get(one[28:32])
            if width is None and one[28:32] == _TABLE_FIRST:
                at = 40
                width = _DST_WIDTHS.get(one[36:40])
            if width is None:
                self._whole(one, batch)
                continue
            pattern = one[:8] + one[16:at] + one[at + width :]
            try:
                template = known[pattern]
            except KeyError:
                if (
                    U32.unpack_from(one, 4)[0] & 0xFFFF not in _ROUTES
                    or not at + width <= len(one) <= _LONGEST_BYTES
                ):
                    self._whole(one, batch)
                    continue
                template = self._learn(one, pattern, width)
            if template is not None:
                value = one[at : at + width]
                batch.add(template.head + value + template.tail, template.key + value, template.new)

    def _learn(self, one: bytes, pattern: bytes, width: int) -> _Template | None:
        if len(self._known) >= _MOST:
            self._known.clear()
        patched = self._one(one)
        template = None
        if patched:
            text = patched.message
            template = _Template(text[:32], text[32 + width :], patched.key[:-width], patched.new)
        self._known[pattern] = template
        return template

    def _whole(self, one: bytes, batch: Batch) -> None:
        patched = self._one(one)
        if patched:
            batch.add(patched.message, patched.key, patched.new)

    def _one(self, one: bytes) -> Patched | None:
        if len(one) < 16:
            raise MalformedError(f"a message of {len(one)} bytes")
        try:
            return self._patch(one)
        except RefusedMessageError as error:
            self.refused += 1
            self.last_refusal = str(error)
            return None
