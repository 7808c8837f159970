"""When libvirt's daemon for a driver last looked for hooks: at its start and at each reload. Later hooks are unknown to it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

# The monolithic daemon, or the driver's own.
DAEMONS = {"qemu": ("libvirtd", "virtqemud"), "libxl": ("libvirtd", "virtxend")}
_SYSTEMCTL_S = 5.0


def looked_s(driver: str, proc: Path = Path("/proc")) -> float | None:
    """When the newest daemon for ``driver`` in our mount namespace looked for hooks, in seconds since 1970; None: none runs."""
    ours = _namespace(proc / "self")
    looks = [
        _looked_s(process)
        for process in proc.iterdir()
        if process.name.isdigit() and _name(process) in DAEMONS[driver] and _namespace(process) == ours
    ]
    return max((look for look in looks if look is not None), default=None)


def _looked_s(process: Path) -> float | None:
    start = _start_s(process)
    if start is None or process.parent != Path("/proc"):
        return start
    return max(start, reloaded_s(_show(_name(process)), int(process.name)) or start)


def reloaded_s(shown: str, pid: int) -> float | None:
    """When systemd started or reloaded process ``pid``, by `systemctl show`; None if systemd does not manage it.

    A unit's state changes when it starts and when it is reloaded ("active", "reloading", "active").
    """
    fields = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    changed_us = fields.get("StateChangeTimestampMonotonic", "")
    if fields.get("MainPID") != str(pid) or fields.get("ActiveState") != "active" or not changed_us.isdigit():
        return None
    return time.time() - time.monotonic() + int(changed_us) / 1e6


def _show(daemon: str) -> str:
    properties = "--property=MainPID,ActiveState,StateChangeTimestampMonotonic"
    command = ["systemctl", "show", properties, f"{daemon}.service"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SYSTEMCTL_S).stdout
    except (OSError, subprocess.TimeoutExpired):  # no systemd here
        return ""


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
