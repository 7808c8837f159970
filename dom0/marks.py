"""Marks by which the hook's shell sees, before it starts anything, that nobody need wait for its call.

A mark is an empty file named like the VM. It only ever saves time: without it libvirt waits until the daemon has answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

_LIMIT_S = 600.0
"""A hypervisor on a busy host took over a minute from our preflight to its first hook of the guest."""


class Marks:
    """One folder of them. Needs a running event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends: dict[str, asyncio.TimerHandle] = {}

    def clear(self) -> None:
        """What a daemon before us has left."""
        with contextlib.suppress(OSError):
            for one in self._folder.iterdir():
                one.unlink()

    def __contains__(self, name: str) -> bool:
        return name in self._ends

    def add(self, name: str) -> None:
        """For ten minutes at most. A name that cannot be a file's gets none."""
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            (self._folder / name).touch(mode=0o600)
        except OSError:
            return
        self._forget(name)
        self._ends[name] = asyncio.get_running_loop().call_later(_LIMIT_S, self.discard, name)

    def discard(self, name: str) -> None:
        if name in self._ends:
            self._forget(name)
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()

    def _forget(self, name: str) -> None:
        end = self._ends.pop(name, None)
        if end is not None:
            end.cancel()


class HookMarks:
    """``expected``: the source's daemon has told us of the VM, and nothing in its XML is to be changed: `migrate begin` has no answer.

    ``prepared``: the source asks us itself before the switchover: `started begin` is no barrier.
    """

    def __init__(self, run_dir: Path) -> None:
        self.expected = Marks(run_dir / "expected")
        self.prepared = Marks(run_dir / "prepared")

    def clear(self) -> None:
        for one in (self.expected, self.prepared):
            one.clear()

    def discard(self, name: str) -> None:
        for one in (self.expected, self.prepared):
            one.discard(name)
