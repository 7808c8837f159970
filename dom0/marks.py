"""Marks by which the hook's shell sees, before it starts anything, that nobody need wait for its call.

A mark is an empty file named like the VM. ``expected`` and ``prepared`` only save time: without them libvirt waits until the daemon
has answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

_MOST = 4096
_LIMIT_S = 600.0
"""A hypervisor on a busy host took over a minute from our preflight to its first hook of the guest."""


class Marks:
    """One folder of them. Needs a running event loop. ``limit_s`` None: a mark lasts until it is discarded."""

    def __init__(self, folder: Path, limit_s: float | None = _LIMIT_S) -> None:
        self._folder = folder
        self._limit_s = limit_s
        self._ends: dict[str, asyncio.TimerHandle | None] = {}

    def clear(self) -> None:
        """What a daemon before us has left."""
        with contextlib.suppress(OSError):
            for one in self._folder.iterdir():
                one.unlink()

    def __contains__(self, name: str) -> bool:
        return name in self._ends

    def add(self, name: str) -> None:
        """For at most as long as these marks last. None is made for a name that cannot be a file's, nor one too many."""
        if not name or "/" in name or name in (".", ".."):
            return
        if name not in self._ends and len(self._ends) >= _MOST:
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            (self._folder / name).touch(mode=0o600)
        except (OSError, ValueError):  # too long, or no text that a file's name can be
            return
        self._forget(name)
        self._ends[name] = (
            None
            if self._limit_s is None
            else asyncio.get_running_loop().call_later(self._limit_s, self.discard, name)
        )

    def replace(self, names: Iterable[str]) -> None:
        """These, and no others."""
        wanted = set(names)
        for name in set(self._ends) - wanted:
            self.discard(name)
        for name in wanted:
            self.add(name)

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

    ``elsewhere``: the VM is bound to another host. The only marks by which libvirt waits: a start may be refused (dom0/elsewhere.py).
    """

    def __init__(self, run_dir: Path) -> None:
        self.expected = Marks(run_dir / "expected")
        self.prepared = Marks(run_dir / "prepared")
        self.elsewhere = Marks(run_dir / "elsewhere", None)

    def clear(self) -> None:
        for one in (self.expected, self.prepared, self.elsewhere):
            one.clear()

    def discard(self, name: str) -> None:
        for one in (self.expected, self.prepared):
            one.discard(name)
