"""Child processes that die with us, and the safe end of those that did not.

A process is named by its pid *and* its start time: a pid alone may since belong to somebody else.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here, because the child must not load anything after fork


class Identity(NamedTuple):
    """A process: pid and start time in clock ticks since boot (field 22 of proc(5) ``/proc/PID/stat``)."""

    pid: int
    start: int


def identity(pid: int) -> Identity | None:
    """Who has ``pid`` now; None: nobody (or a process that has ended and only waits to be reaped)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    after_name = stat.rpartition(")")[2].split()
    return None if after_name[0] in "ZX" else Identity(pid, int(after_name[19]))


def read_identity(pidfile: Path) -> Identity | None:
    """The process that ``pidfile`` names, if it still runs."""
    try:
        pid, start = (int(word) for word in pidfile.read_text().split())
    except (OSError, ValueError):
        return None
    return who if (who := identity(pid)) == Identity(pid, start) else None


def write_identity(pidfile: Path, pid: int) -> None:
    """Write ``pid`` and its start time, whole or not at all."""
    if (who := identity(pid)) is None:
        return
    draft = pidfile.with_suffix(".new")
    draft.write_text(f"{who.pid} {who.start}\n")
    draft.replace(pidfile)


def end(who: Identity, grace_s: float = 2.0) -> bool:
    """End a process (SIGTERM; SIGKILL after ``grace_s`` seconds). True when it is gone; never touches another
    one."""
    try:
        fd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return True
    try:
        if identity(who.pid) != who:  # the pidfd holds the pid now, so this answer stays true
            return True
        return any(_signal_and_wait(fd, number, grace_s) for number in (signal.SIGTERM, signal.SIGKILL))
    finally:
        os.close(fd)


def _signal_and_wait(fd: int, number: signal.Signals, grace_s: float) -> bool:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(grace_s * 1000))


def dies_with(parent: int) -> Callable[[], None]:
    """A ``preexec_fn``: the child gets SIGKILL when the *thread* that started it ends (prctl(2)).

    SIGKILL, since a stopped or stuck server would sit out a SIGTERM; what it acknowledged is on disk already.
    """

    def prepare() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return prepare
