"""When libvirt's daemon for a driver was started: hooks that came later may be unknown to it."""

from __future__ import annotations

import os
import time
from pathlib import Path

# The monolithic daemon, or the driver's own.
DAEMONS = {"qemu": ("libvirtd", "virtqemud"), "libxl": ("libvirtd", "virtxend")}


def started_s(driver: str, proc: Path = Path("/proc")) -> float | None:
    """Start of the newest daemon for ``driver`` in our mount namespace, in seconds since 1970; None: none runs."""
    ours = _namespace(proc / "self")
    starts = [
        _start_s(one)
        for one in proc.iterdir()
        if one.name.isdigit() and _name(one) in DAEMONS[driver] and _namespace(one) == ours
    ]
    return max((one for one in starts if one is not None), default=None)


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:  # it ended meanwhile
        return ""


def _namespace(process: Path) -> str:
    try:
        return str((process / "ns" / "mnt").readlink())
    except OSError:
        return ""


def _start_s(process: Path) -> float | None:
    """proc(5): field 22 of stat is the start in clock ticks after boot; the name before it may hold anything."""
    try:
        ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK")
