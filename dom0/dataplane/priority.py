"""Real-time priority while a guest stands still, for this daemon and the guest's QEMU: when they wait for a processor, so does the guest.

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
_PID_FILES = Path("/run/libvirt/qemu")
"""Where libvirt's QEMU driver writes ``NAME.pid`` (virPidFileBuildPath)."""
_log = logging.getLogger("dom0.priority")


def guest_process(name: str) -> int | None:
    """The process id of a guest's QEMU on this host; None if there is none, or the hypervisor is another."""
    try:
        process = int((_PID_FILES / f"{name}.pid").read_text())
        return process if Path(f"/proc/{process}/comm").read_text().startswith("qemu") else None
    except (OSError, ValueError):
        return None


def real_time(process: int, on: bool) -> None:
    """All threads of a process, and those they start, come before everything that is not real-time; or as usual again."""
    policy, level = (os.SCHED_RR, _LEVEL) if on else (os.SCHED_OTHER, 0)
    try:
        with CHANGING:
            for task in Path(f"/proc/{process}/task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setscheduler(int(task.name), policy, os.sched_param(level))
    except FileNotFoundError:
        _log.debug("process %d has ended", process)
    except PermissionError as error:
        _log.warning("no real-time priority for switchovers (CAP_SYS_NICE): %s", error)


class Hurry:
    """Processes have the priority while anybody wants them to, each for :data:`LIMIT_S` at most. Use it on the event loop."""

    def __init__(self, change: Callable[[int, bool], None] = real_time) -> None:
        self._change = change
        self._holders: dict[tuple[Hashable, int], asyncio.TimerHandle] = {}

    def begin(self, holder: Hashable, process: int) -> None:
        """Again: nothing, and no longer."""
        if (holder, process) in self._holders:
            return
        if not self._wanted(process):
            self._change(process, True)
        limit = asyncio.get_running_loop().call_later(LIMIT_S, self.end, holder, process)
        self._holders[holder, process] = limit

    def end(self, holder: Hashable, process: int) -> None:
        """Of who did not begin, or has had it long enough: nothing."""
        limit = self._holders.pop((holder, process), None)
        if limit is None:
            return
        limit.cancel()
        if not self._wanted(process):
            self._change(process, False)

    def _wanted(self, process: int) -> bool:
        return any(one == process for _holder, one in self._holders)
