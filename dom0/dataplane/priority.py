"""A moving guest and this daemon come first on their processors, for as long as each must not wait.

While the guest stands still, and before if it has to take what waits for it: real-time priority for this daemon and the guest's
QEMU; when they wait, so does the guest. Where traffic fills all processors an ordinary thread may wait for its turn for hundreds of
milliseconds, longer than neighbours wait for a router's BFD (measured: end of the old path after 130 to 1000 ms; with this, after 2).
A nice value is not enough: it makes a turn longer, not earlier. The daemon has it already when its next look at the progress may be
the last: a late one lets QEMU stop the guest before us.

The second after: a larger share for the guest, which has to catch up, with cold caches (measured: 230 ms instead of 300 until a
router's control plane answers again, without KVM). And in the first second, when the destination's QEMU starts: the hosts of a lab
share their processors.

Only ordinary threads are changed, and only those changed are changed back: what the operator has given his guests stays.
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
"""Nobody keeps anything for longer, whatever becomes of the switchover."""
CHANGING = threading.Lock()
"""Held by whoever changes a thread's policy, or changes it for a moment and puts it back."""
_LEVEL, _GUEST_LEVEL = 7, 6
"""This daemon before a guest: among equals, who runs may run on for 100 ms."""
_FAVOUR = -19
"""These tell ours from others' threads."""
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
    level = _LEVEL if process == os.getpid() else _GUEST_LEVEL
    change = _to_real_time if on else _to_ordinary
    with CHANGING:
        _each_thread(process, lambda thread: change(thread, level))


def favour(process: int, on: bool) -> None:
    """A larger share of the processors for all threads of a process, and for those they start."""
    usual, wanted = (0, _FAVOUR) if on else (_FAVOUR, 0)

    def change(thread: int) -> None:
        if os.getpriority(os.PRIO_PROCESS, thread) == usual:
            os.setpriority(os.PRIO_PROCESS, thread, wanted)

    _each_thread(process, change)


def calm() -> None:
    """Nothing of either for any guest: what a daemon that was killed could not give back."""
    for file in _PID_FILES.glob("*.pid"):
        if (process := guest_process(file.stem)) is not None:
            real_time(process, False)
            favour(process, False)


def _each_thread(process: int, change: Callable[[int], None]) -> None:
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(ProcessLookupError):
                change(int(task.name))
    except FileNotFoundError:
        _log.debug("process %d has ended", process)
    except PermissionError as error:
        _log.warning("no priority for switchovers (CAP_SYS_NICE): %s", error)


def _to_real_time(thread: int, level: int) -> None:
    if os.sched_getscheduler(thread) == os.SCHED_OTHER:
        os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(level))


def _to_ordinary(thread: int, level: int) -> None:
    if os.sched_getscheduler(thread) == os.SCHED_RR and os.sched_getparam(thread).sched_priority == level:
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


class Hurry:
    """``change(process, True)`` while anybody wants it for that process, each for :data:`LIMIT_S` at most. On the event loop."""

    def __init__(self, change: Callable[[int, bool], None]) -> None:
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
