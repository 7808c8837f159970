"""What a port is made of, given back together.

Closing a packet socket or a device waits until the kernel has no reader of it left (RCU), for tens of milliseconds each: one after
the other they would cost a migration more than its switchover.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar


class Closable(Protocol):
    def close(self) -> None: ...


Part = TypeVar("Part", bound=Closable)


class Parts:
    def __init__(self) -> None:
        self._open: list[Closable] = []

    def add(self, part: Part) -> Part:
        self._open.append(part)
        return part

    @contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        """Around the making of all parts: half a port is none."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """All of them, at the same time; again: nothing. Raises the first error when all have been tried."""
        parts, self._open = self._open, []
        if not parts:
            return
        with ThreadPoolExecutor(len(parts)) as pool:
            closing = [pool.submit(part.close) for part in parts]
        for one in closing:
            one.result()
