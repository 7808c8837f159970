"""Notices that the host's clock was set: times from before and after are not of one scale then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_STEP_NS: Final = 2_000_000
"""More than adjtimex(2) slews between two looks (500 us a second at most), and less than what a decision here turns on."""


class ClockStep:
    """:meth:`look` every few ten milliseconds; the clocks are arguments, in ns."""

    def __init__(
        self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall, self._steady = wall, steady
        self._difference = self._read()
        self.seen = False
        """CLOCK_REALTIME was set since this was made."""

    def _read(self) -> int:
        """The clocks' difference: of three readings the one that was held up least between its two halves."""
        readings = []
        for _ in range(3):
            before = self._steady()
            wall = self._wall()
            after = self._steady()
            readings.append((after - before, wall - before))
        return min(readings)[1]

    def look(self) -> bool:
        """Whether the clock was set, now or before."""
        difference = self._read()
        if abs(difference - self._difference) > _STEP_NS:
            self.seen = True
        self._difference = difference
        return self.seen
