"""What a session tells of for the first time: while it does, its table is still coming. What it tells again is change.

A router with the Internet's table changes a route every second, day and night; so silence is no mark of a table's end.
"""

from __future__ import annotations

from collections.abc import Iterable

_BITS = 24
_MASK = (1 << _BITS) - 1


class FirstTold:
    """2 MiB: a bit a hash. Of a million keys, one in sixteen passes for one that was told before."""

    def __init__(self) -> None:
        self._bits = bytearray(1 << (_BITS - 3))

    def add(self, keys: Iterable[bytes]) -> bool:
        """Whether any of them is told of for the first time."""
        bits, first = self._bits, False
        for key in keys:
            place = hash(key) & _MASK
            at, bit = place >> 3, 1 << (place & 7)
            if not bits[at] & bit:
                bits[at] |= bit
                first = True
        return first
