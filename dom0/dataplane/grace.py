"""Waits until every frame that saw the old state of a gate is through.

The gate's program and the sending of a frame run inside one RCU read section, so a grace period is what it takes; membarrier(2) with
MEMBARRIER_CMD_GLOBAL is one. A processor that was held up in between (by a hypervisor of its own, say) is waited for as well.
"""

from __future__ import annotations

import ctypes
import os

from dom0.dataplane.priority import CHANGING

_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283}[os.uname().machine]
_GLOBAL = 1
_ABOVE_HURRY = 8

_libc = ctypes.CDLL(None, use_errno=True)


def wait_for_frames_under_way() -> bool:
    """Takes some milliseconds. False if the kernel does not offer it (processors in ``nohz_full``)."""
    return int(_libc.syscall(_MEMBARRIER, _GLOBAL, 0, 0)) == 0


def wait_for_hands() -> bool:
    """Every processor has finished the frame it had in its hands: as above, but in microseconds a processor instead of milliseconds.

    A thread of real-time priority cannot run on a processor that is in the middle of a softirq; so this one visits them all. Falls
    back to :func:`wait_for_frames_under_way` where it may not (a container, a cpuset). Call it in a thread.
    """
    allowed = os.sched_getaffinity(0)
    if len(allowed) < (os.cpu_count() or 1):
        return wait_for_frames_under_way()
    with CHANGING:
        usual, policy = os.sched_getparam(0), os.sched_getscheduler(0)
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_ABOVE_HURRY))
        except PermissionError:
            return wait_for_frames_under_way()
        try:
            for processor in allowed:
                os.sched_setaffinity(0, {processor})
        finally:
            os.sched_setaffinity(0, allowed)
            os.sched_setscheduler(0, policy, usual)
    return True
