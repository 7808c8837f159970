"""Each interface waits for its own old path, and for no other's."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from dom0.marker_wait import MarkerWait


class Port:
    """Hears its announcement, come back by the old path, if it ``comes_back``."""

    def __init__(self, comes_back: bool) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.comes_back, self.announced = comes_back, 0

    @property
    def marker(self) -> Any:
        return self

    def announce(self) -> None:
        self.announced += 1
        if self.comes_back:
            os.eventfd_write(self.fd, 1)

    def drain(self) -> list[bytes]:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        return [b"announcement"]


def test_one_that_hears_nothing_holds_nobody_up() -> None:
    ports = [Port(True), Port(False), Port(True)]
    heard: list[tuple[int, float]] = []
    began = time.monotonic()

    async def note(port: Port) -> None:
        heard.append((ports.index(port), time.monotonic() - began))

    late = asyncio.run(MarkerWait(b"", 0.6).until_marked(ports, lambda port: port.announce(), note))
    took_s = time.monotonic() - began
    assert late == [ports[1]] and sorted(which for which, _at in heard) == [0, 2]
    assert took_s >= 0.6 and max(at for _which, at in heard) < took_s / 2
    assert ports[1].announced > ports[0].announced == 1


def test_all_have_heard() -> None:
    ports = [Port(True), Port(True)]
    assert asyncio.run(MarkerWait(b"", 5).until_marked(ports, lambda port: port.announce())) == []
