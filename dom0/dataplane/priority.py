"""Real-time priority for this daemon while a guest stands still: every millisecond that it waits for a processor, the guest waits.

On a host whose processors are full of somebody's traffic an ordinary thread may wait for its turn for hundreds of milliseconds, longer
than neighbours wait for a router's BFD (measured: end of the old path after 130 to 1000 ms; with this, after 2). A nice value is not
enough: it makes a turn longer, not earlier.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path

LIMIT_S = 1.0
"""Nobody keeps the priority for longer, whatever becomes of the switchover."""
CHANGING = threading.Lock()
"""Held by whoever changes a thread's policy, or changes it for a moment and puts it back."""
_LEVEL = 1
_TASKS = Path("/proc/self/task")
_log = logging.getLogger("dom0.priority")


def real_time(on: bool) -> None:
    """All threads of this process, and those they start, come before everything that is not real-time; or as usual again."""
    policy, level = (os.SCHED_RR, _LEVEL) if on else (os.SCHED_OTHER, 0)
    try:
        with CHANGING:
            for task in _TASKS.iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setscheduler(int(task.name), policy, os.sched_param(level))
    except PermissionError as error:
        _log.warning("no real-time priority for switchovers (CAP_SYS_NICE): %s", error)


class Hurry:
    """``change(True)`` while anybody who began has not ended, each for :data:`LIMIT_S` at most. Use it on the event loop."""

    def __init__(self, change: Callable[[bool], None] = real_time) -> None:
        self._change = change
        self._holders: dict[Hashable, asyncio.TimerHandle] = {}

    def begin(self, holder: Hashable) -> None:
        """Again: nothing, and no longer."""
        if holder in self._holders:
            return
        if not self._holders:
            self._change(True)
        self._holders[holder] = asyncio.get_running_loop().call_later(LIMIT_S, self.end, holder)

    def end(self, holder: Hashable) -> None:
        """Of who did not begin, or has had it long enough: nothing."""
        limit = self._holders.pop(holder, None)
        if limit is None:
            return
        limit.cancel()
        if not self._holders:
            self._change(False)
