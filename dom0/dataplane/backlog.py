"""Waits until what the kernel has taken in has been forwarded: frames wait in each processor's backlog between two devices.

A frame that goes through a namespace is queued anew at every veth on its way (``netif_rx``), on the processor that handed it over. One
that another path brings may so overtake it, unless one waits for the queues to have been empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dom0.dataplane import grace

_STATISTICS = Path("/proc/net/softnet_stat")
_LENGTH = 11
"""Column of ``softnet_seq_show`` (net/core/net-procfs.c): frames in this processor's backlog. Linux 5.10 and later."""
_LIMIT_S = 0.05
_LOOK_S = 0.0002
_ROUNDS = 2
"""A frame through a namespace is queued twice: at either veth."""


def wait_until_passed(counted: Callable[[], int] = lambda: 0) -> bool:
    """All that was under way in the kernel when this was called has left it, or got to where it waits for something else.

    ``counted``: frames that have come by the path in question; while more do, they are waited for as well. False if a processor
    was never seen idle within 50 ms, or frames kept coming: then order is not certain.
    """
    deadline = time.monotonic() + _LIMIT_S
    before, quiet = counted(), 0
    # what a processor has in its hands is in no queue: wait for its hands, then look again
    while quiet < _ROUNDS:
        grace.wait_for_hands()
        if not _seen_empty(deadline):
            return False
        now = counted()
        quiet = quiet + 1 if now == before else 0
        before = now
    return True


def _seen_empty(deadline: float) -> bool:
    """Every processor's backlog was empty at some moment."""
    lengths = _lengths()
    waiting = {number for number, length in enumerate(lengths) if length}
    while waiting:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
        waiting &= {number for number, length in enumerate(_lengths()) if length}
    return True


def _lengths() -> list[int]:
    rows = [line.split() for line in _STATISTICS.read_text().splitlines()]
    return [int(row[_LENGTH], 16) if len(row) > _LENGTH else 0 for row in rows]
