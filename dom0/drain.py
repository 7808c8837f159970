"""The guest, which still runs, takes what its tap has: then nothing of it has to be found again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

_LIMIT_S: Final = 0.15
"""What comes meanwhile waits; QEMU, whose pass goes on, may be quicker."""
_LOOK_S: Final = (0.0002, 0.0015)
"""From, to: who looks more often takes from the guest the processor that it lacks."""


class Tap(Protocol):
    def unread(self) -> int:
        """Frames that the guest's hypervisor has not read."""


async def drained(taps: Sequence[Tap], stopped: asyncio.Event, hurry: Callable[[], None]) -> bool:
    """False if it takes longer than 0.15 s, or the guest stops by itself: what its hypervisor read last it may not have taken.

    ``hurry`` is called when there is something to wait for.
    """
    deadline = time.monotonic() + _LIMIT_S
    pause_s, longest_s = _LOOK_S
    while any(tap.unread() for tap in taps):
        if stopped.is_set() or time.monotonic() > deadline:
            return False
        await asyncio.sleep(pause_s)
        hurry()
        pause_s = min(pause_s * 1.5, longest_s)
    return not stopped.is_set()
