"""Sees the fences that come by an old path (:mod:`controller_bridge.fence`), where what comes by it goes into a tunnel."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from controller_bridge import fence
from dom0.dataplane.listener import Listener, source_filter
from dom0.dataplane.parts import Parts


class Fences:
    """Behind what goes out of ``devices``. Made where an event loop runs; OSError if a device is not there."""

    def __init__(self, devices: Iterable[str]) -> None:
        self.seen = 0
        """How many have come, whatever their tokens."""
        self._by_token: Counter[bytes] = Counter()
        self._news = asyncio.Event()
        self._parts = Parts()
        with self._parts.closed_on_failure():
            self._listeners = [
                self._parts.add(Listener(device, source_filter(fence.SOURCE))) for device in devices
            ]
        for one in self._listeners:
            asyncio.get_running_loop().add_reader(one.fd, self.turn)

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

    async def close(self) -> None:
        for one in self._listeners:
            asyncio.get_running_loop().remove_reader(one.fd)
        await asyncio.to_thread(self._parts.close)
