"""An event loop whose time is a number: where it would wait, it jumps."""

from __future__ import annotations

import asyncio
import time as real
from typing import Any


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        loop: Any = self
        if not loop._ready:
            loop._process_events(loop._selector.select(0))
        if not loop._ready:
            if not loop._scheduled:
                raise RuntimeError("nothing is left to happen")
            self.now = max(self.now, loop._scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


class Time:
    """What the daemon's modules see as ``time``."""

    def __init__(self, loop: JumpingLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.now

    def time(self) -> float:
        return 1_700_000_000 + self._loop.now

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)
