"""When a guest's tap was seen empty while the guest ran. Pure.

A hypervisor that has stopped its guest reads the tap once more, and the tap looks empty again: what it read then the guest never gets.
The daemon hears of the stop late, and looks at the tap until then. So what it saw counts only if it was seen before the stop.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_MOST: Final = 4096
"""Looks that are kept: some seconds' worth. The daemon hears of a stop within a fraction of one."""


class Emptiness:
    """Moments are CLOCK_REALTIME, in ns."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque(maxlen=_MOST)

    def note(self, begin_ns: int, end_ns: int) -> None:
        """All that had come before ``begin_ns`` had been read by ``end_ns``."""
        self._seen.append((begin_ns, end_ns))

    def before(self, stop_ns: int) -> int:
        """What came before this moment was read while the guest ran; 0 if nothing is known of any."""
        return next((begin for begin, end in reversed(self._seen) if end <= stop_ns), 0)
