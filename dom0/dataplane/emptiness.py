"""When a guest's tap was seen empty while the guest ran. Pure.

A hypervisor that has stopped its guest reads the tap once more, and the tap looks empty again: what it read then the guest never gets.
The daemon hears of the stop late, and looks at the tap until then. So what it saw counts only if it was seen before the hypervisor
began to stop the guest.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

from dom0.dataplane.stranded import GUARD_NS

_LATEST: Final = 16
MOST_GUARD_NS: Final = 100_000_000
_MOST: Final = 4096
"""Looks that are kept: some seconds' worth. The daemon hears of a stop within a fraction of one."""


class LookPace:
    """How quick this host is, by our own looks at the tap: one that gives us a turn late gives its hypervisor no more of them."""

    def __init__(self) -> None:
        self._moments_ns: deque[int] = deque(maxlen=_LATEST)

    def note(self, now_ns: int) -> None:
        """A look, by a clock that does not step."""
        self._moments_ns.append(now_ns)

    def guard_ns(self) -> int:
        """How long a guest may take to stop here: twice the longest time between two of the last looks, 20 to 100 ms."""
        moments = list(self._moments_ns)
        longest = max((b - a for a, b in pairwise(moments)), default=MOST_GUARD_NS)
        return min(MOST_GUARD_NS, max(GUARD_NS, 2 * longest))


class Emptiness:
    """Moments are CLOCK_REALTIME, in ns."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque(maxlen=_MOST)

    def note(self, begin_ns: int, end_ns: int) -> None:
        """All that had come before ``begin_ns`` had been read by ``end_ns``."""
        self._seen.append((begin_ns, end_ns))

    def before(self, stop_ns: int) -> int:
        """What came before this moment was read while the guest ran; 0 if nothing is known of any. ``stop_ns``: it began to stop."""
        return next((begin for begin, end in reversed(self._seen) if end <= stop_ns), 0)
