"""Ctrl-C during work in an event loop, noticed where nothing can swallow it.

Python's own handler raises wherever the program happens to be. While :func:`asyncio.run` takes its loop apart that is lost, or becomes
another error (CPython 3.11, ``asyncio/runners.py``: seen in one of 84 interrupts).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Interrupts:
    """To be entered in the main thread: from then on SIGINT ends what :meth:`run` runs, or the next that it is given."""

    def __init__(self) -> None:
        self._heard = False
        self._cancel: Callable[[], object] | None = None

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _hear(self, _signal: int, _frame: FrameType | None) -> None:
        self._heard = True
        if self._cancel is not None:
            self._cancel()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """As :func:`asyncio.run`. KeyboardInterrupt, after everything has been put away."""

        async def body() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
            self._cancel = partial(loop.call_soon_threadsafe, task.cancel)  # wakes the loop, too
            if self._heard:  # before there was somebody to tell
                task.cancel()
            try:
                return await task
            finally:
                self._cancel = None

        try:
            done = asyncio.run(body())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        if self._heard:
            raise KeyboardInterrupt
        return done

    @contextmanager
    def as_usual(self) -> Iterator[None]:
        """For work that has its own way with SIGINT."""
        signal.signal(signal.SIGINT, self._before)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, self._hear)
