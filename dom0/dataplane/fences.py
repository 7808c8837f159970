"""Sees the fences that come by an old path (:mod:`controller_bridge.fence`), where what comes by it goes into a tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from controller_bridge import fence
from dom0.dataplane.listener import Listener, source_filter
from dom0.dataplane.parts import Parts


class Fences:
    """Behind what goes out of ``devices``. Made where an event loop runs; OSError if a device is not there."""

    def __init__(self, devices: Iterable[str]) -> None:
        self.seen = 0
        """How many have come, whatever their tokens."""
        self._token, self._come = b"", 0
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
                self.seen += token is not None
                self._come += token == self._token
        self._news.set()

    def expect(self, token: bytes) -> None:
        """Before they are asked for."""
        self._token, self._come = token, 0

    async def come(self, count: int, limit_s: float) -> bool:
        """Until ``count`` of those that are expected have; False if they have not in that time."""
        try:
            async with asyncio.timeout(limit_s):
                while self._come < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """No more is heard."""
        for one in self._listeners:
            asyncio.get_running_loop().remove_reader(one.fd)

    async def close(self) -> None:
        """The kernel takes some 10 ms."""
        self.stop()
        await asyncio.to_thread(self._parts.close)
