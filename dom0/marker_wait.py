"""At the destination: waits until the old path is empty, for each interface by itself.

Something that the source, or this host, sent last by the old path comes back through the tunnel: the end marker. From then on what
arrives directly can be let in without overtaking anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from dom0.dataplane.announce import is_end_marker
from dom0.dataplane.listener import Listener

_REPEAT_S = (0.0, 0.05, 0.15, 0.25, 0.35)


class Marked(Protocol):
    """A way in that hears when the old path to it is empty."""

    @property
    def marker(self) -> Listener: ...


async def _nothing(_port: Any) -> None:
    """Of a way in that is opened later, with others."""


class MarkerWait:
    """``marker``: what the source's own end marker says; empty: an announcement, come back, is it. ``limit_s``: of one call."""

    def __init__(self, marker: bytes, limit_s: float) -> None:
        self._marker, self._limit_s = marker, limit_s

    async def until_marked(
        self,
        waiting: Sequence[Marked],
        announce: Callable[[Any], None],
        heard: Callable[[Any], Awaitable[None]] = _nothing,
    ) -> list[Marked]:
        """Those whose marker has not come in time. ``heard`` is called with each of the others as soon as its has."""
        deadline = time.monotonic() + self._limit_s
        left = list(waiting)
        if self._marker:  # it may have come already, and nobody would have announced anything
            for port in left:
                announce(port)
        for pause_s in (*_REPEAT_S, self._limit_s):
            left = await self._unmarked(left, min(pause_s, deadline - time.monotonic()), heard)
            if not left or time.monotonic() >= deadline:
                break
            for port in left:
                announce(port)
        return left

    async def _unmarked(
        self, ports: Sequence[Marked], limit_s: float, heard: Callable[[Any], Awaitable[None]]
    ) -> list[Marked]:
        """Those of ``ports`` whose marker has not come after at most ``limit_s`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(0.0, limit_s)
        left = await self._without(ports, heard)
        while left and loop.time() < deadline:
            something = asyncio.Event()
            for port in left:
                loop.add_reader(port.marker.fd, something.set)
            try:
                await asyncio.wait_for(something.wait(), max(0.0, deadline - loop.time()))
            except TimeoutError:
                break
            finally:
                for port in left:
                    loop.remove_reader(port.marker.fd)
            left = await self._without(left, heard)
        return left

    async def _without(
        self, ports: Sequence[Marked], heard: Callable[[Any], Awaitable[None]]
    ) -> list[Marked]:
        marked = {id(port) for port in ports if self._is_marked(port)}
        for port in ports:
            if id(port) in marked:
                await heard(port)
        return [port for port in ports if id(port) not in marked]

    def _is_marked(self, port: Marked) -> bool:
        frames = port.marker.drain()
        return any(is_end_marker(one, self._marker) for one in frames) if self._marker else bool(frames)
