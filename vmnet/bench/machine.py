"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any


def describe(accel: str) -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _field(Path("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$"),
        "memory_mib": int(_field(Path("/proc/meminfo"), r"^MemTotal:\s*(\d+)") or 0) // 1024,
        "kernel": platform.release(),
        "os": _field(Path("/etc/os-release"), r'^PRETTY_NAME="?([^"\n]+)'),
        "python": platform.python_version(),
        "libvirt": _version(["libvirtd", "--version"]),
        "qemu": _version(["qemu-system-x86_64", "--version"]),
        "openvswitch": _version(["ovs-vswitchd", "--version"]),
        "accel": accel,
    }


def _field(file: Path, pattern: str) -> str:
    try:
        found = re.search(pattern, file.read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""


def _version(argv: list[str]) -> str:
    """The first version number it prints; empty when it is not there."""
    program = shutil.which(argv[0])
    if program is None:
        return ""
    done = subprocess.run([program, *argv[1:]], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)*", done.stdout)
    return found[0] if found else ""
