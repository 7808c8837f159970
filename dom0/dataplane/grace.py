"""Waits until every frame that saw the old state of a gate is through.

The gate's program and the sending of a frame run inside one RCU read section, so a grace period is what it takes; membarrier(2) with
MEMBARRIER_CMD_GLOBAL is one. A processor that was held up in between (by a hypervisor of its own, say) is waited for as well.
"""

from __future__ import annotations

import ctypes
import os

_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283}[os.uname().machine]
_GLOBAL = 1

_libc = ctypes.CDLL(None, use_errno=True)


def wait_for_frames_under_way() -> bool:
    """Takes some milliseconds. False if the kernel does not offer it (processors in ``nohz_full``)."""
    return int(_libc.syscall(_MEMBARRIER, _GLOBAL, 0, 0)) == 0
