"""One thread that does the work on one router's table.

The kernel may take half a second for one route (it doubles its tables, with a million routes in them), and the loop has switchovers to
make meanwhile. Python's part of the work is a fraction of a millisecond a piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """What is given to it is done one after another. Made inside a running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(1, "fib")

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Begins at once or when it is its turn. Raises what ``function`` raises, to whoever awaits it."""
        return self._loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def tell(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """From the thread: call ``function`` on the loop, in order, and before the loop hears that the work is done."""
        self._loop.call_soon_threadsafe(lambda: function(*args, **kwargs))

    async def idle(self) -> None:
        """All that was begun is done, and all that it told was heard."""
        await self.start(lambda: None)

    def close(self) -> None:
        self._pool.shutdown(wait=False)
