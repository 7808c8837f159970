"""Which generation a route or a next hop is of, written into the kernel's own fields.

A route's ``rtm_protocol`` is 224 + generation (iproute2's rt_protos and FRR know none of these numbers); a next hop's id has the
generation in its four top bits. So the kernel's table is the only record, and a restarted daemon reads it there.
"""

from __future__ import annotations

from collections.abc import Collection

COUNT = 16
FIRST = 224
MARKS = range(FIRST, FIRST + COUNT)
RULE_MARK = 240
ID_BITS = 28
MOST_ID = (1 << ID_BITS) - 1


def mark(generation: int) -> int:
    """``rtm_protocol`` of a generation."""
    return FIRST + generation


def following(current: int, held: Collection[int]) -> int | None:
    """The next generation of which the kernel holds nothing (``held``: generations that it may); None if it holds all of them."""
    for step in range(1, COUNT + 1):
        candidate = (current + step) % COUNT
        if candidate not in held:
            return candidate
    return None
