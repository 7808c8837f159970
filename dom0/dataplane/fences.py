"""Sees the fences that come by an old path (:mod:`controller_bridge.fence`), where what comes by it goes into a tunnel."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from controller_bridge import fence
from dom0.dataplane.listener import Listener, source_filter


class Fences:
    """Behind what goes out of ``devices``. Made and closed where an event loop runs; OSError if a device is not there."""

    def __init__(self, devices: Iterable[str]) -> None:
        self.seen = 0
        """How many have come, whatever their tokens."""
        self._by_token: Counter[bytes] = Counter()
        self._news = asyncio.Event()
        self._listeners: list[Listener] = []
        try:
            for device in devices:
                self._hear(Listener(device, source_filter(fence.SOURCE)))
        except OSError:
            self.close()
            raise

    def _hear(self, listener: Listener) -> None:
        self._listeners.append(listener)
        asyncio.get_running_loop().add_reader(listener.fd, self.turn)

    def turn(self) -> None:
        """Take over what has come."""
        for listener in self._listeners:
            for frame in listener.drain():
                token = fence.token_of(frame)
                if token is not None:
                    self.seen += 1
                    self._by_token[token] += 1
        self._news.set()

    async def come(self, token: bytes, count: int, limit_s: float) -> bool:
        """Until ``count`` with ``token`` have; False if they have not in that time."""
        try:
            async with asyncio.timeout(limit_s):
                while self._by_token[token] < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fd)
            listener.close()
