"""Entering a node: a command in its network, mount and UTS namespaces, or a function in its network namespace."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# setns into a mount namespace moves the working directory to /; go back where that folder exists.
_TRAMPOLINE = 'cd "$0" 2>/dev/null || cd /; exec "$@"'


def argv(pid: int, command: Sequence[str], cwd: str | None = None) -> list[str]:
    """Command line that runs ``command`` in the namespaces of process ``pid``."""
    shell = ["/bin/sh", "-c", _TRAMPOLINE, cwd or str(Path.cwd())]
    return ["nsenter", f"--target={pid}", "--net", "--mount", "--uts", "--", *shell, *command]


def call(netns: Path, function: Callable[[], T]) -> T:
    """Run a function in a thread of its own inside a network namespace.

    Sockets that it opens stay in that namespace and may be used from anywhere. Raises what the function raises.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_entered, netns, function).result()


def _entered(netns: Path, function: Callable[[], T]) -> T:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, os.CLONE_NEWNET if hasattr(os, "CLONE_NEWNET") else 0x40000000):
            raise OSError(ctypes.get_errno(), f"cannot enter {netns}")
    finally:
        os.close(fd)
    return function()
