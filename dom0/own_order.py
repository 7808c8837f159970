"""What a guest sends from its new host does not overtake what it sent from its old one, where a fabric is told of moves.

A guest stands still for some ten milliseconds, and mostly nothing of its own is under way any more when it goes on. But a switch that
gets no processor, or has a long queue, keeps packets for longer. So the source says something behind the guest's last packet
(:mod:`controller_bridge.last_words`), and what the guest sends here waits until that has come.

For ports of Linux bridges alone: they can be told to keep the guest's address at its port, whatever comes in its name from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

from controller_bridge import last_words, local_frame
from controller_bridge.last_words import Words
from dom0 import bridges
from dom0.dataplane.destination_port import DestinationPort
from dom0.dataplane.listener import Listener, broadcast_filter

LIMIT_S: Final = 0.3
"""On full processors it took up to 0.12 s; and the frame may be lost."""
_LOOK_S: Final = 0.005
_SAID: Final = 30
"""Bytes of the frame that are not padding."""


class OwnOrder:
    """Of ``ports``, which have an outgoing gate. Made where an event loop runs."""

    def __init__(self, ports: Iterable[DestinationPort], marker: bytes) -> None:
        self._ports = list(ports)
        self._rehearsals = self._all(marker, Words.REHEARSAL)
        self._last = self._all(marker, Words.LAST)
        self._heard: set[bytes] = set()
        self._news = asyncio.Event()
        self._listener = Listener(None, broadcast_filter(local_frame.ETHER_TYPE))
        asyncio.get_running_loop().add_reader(self._listener.fd, self._turn)

    def _all(self, marker: bytes, words: Words) -> set[bytes]:
        return {last_words.frame(port.settings.mac, marker, words)[:_SAID] for port in self._ports}

    def _turn(self) -> None:
        said = {frame[:_SAID] for frame in self._listener.drain()}
        self._heard |= said & (self._rehearsals | self._last)
        self._news.set()

    @property
    def rehearsed(self) -> bool:
        """The fabric brings such frames here."""
        return self._heard >= self._rehearsals

    def hold(self) -> None:
        """From now on what the guest sends waits."""
        for port in self._ports:
            with contextlib.suppress(OSError):
                bridges.pin(port.tap, port.settings.mac.hex(":"))
            port.hold_outgoing()

    async def let_go(self, resumed: asyncio.Event) -> bool:
        """When the last of the old has come, or 0.3 s after the guest has resumed; False if it should have come and has not."""
        loop = asyncio.get_running_loop()
        deadline = None
        while not self._heard >= self._last and not any(port.outgoing_full for port in self._ports):
            if resumed.is_set():
                deadline = deadline or loop.time() + (LIMIT_S if self.rehearsed else 0)
                if loop.time() >= deadline:
                    break
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_S)
        in_order = [await asyncio.to_thread(port.let_go_outgoing) for port in self._ports]
        return all(in_order) and (self._heard >= self._last or not self.rehearsed)

    def close(self) -> None:
        """Nothing is heard any more, and the bridges learn again."""
        asyncio.get_running_loop().remove_reader(self._listener.fd)
        self._listener.close()
        for port in self._ports:
            with contextlib.suppress(OSError):
                bridges.pin(port.tap, port.settings.mac.hex(":"), False)
