"""A router that leaves this host: its data plane is cloned to the other host while both go on.

Its links move before its VM does.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dom0.claim import Wire
from dom0.dataplane import backlog
from dom0.dataplane.port_settings import PortSettings
from dom0.router.keepalive_handover import export_book
from dom0.router.leaving_link import LeavingLink
from dom0.router.router import Router
from vmnet.errors import WaitTimeoutError

Ask = Callable[..., Awaitable[dict[str, Any]]]
_WANTED_S = 30.0
_MOST_BYTES = 48 * 1024
"""Of one message's routes: the daemons' other messages go between."""


class RouterLeaving:
    """``ask(op, **payload)`` puts a question to the destination."""

    def __init__(self, router: Router, ask: Ask) -> None:
        self.router = router
        self.wanted = asyncio.Event()
        """The destination has made its namespace."""
        self.cloned = asyncio.Event()
        self.ordered = True
        """False: this host was too busy for it to be certain."""
        self.links: list[tuple[Wire, LeavingLink]] = []
        self._ask = ask
        self._changes: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()
        self._frozen: list[dict[str, Any]] | None = None

    async def attach(self, wires: Sequence[tuple[Wire, PortSettings]]) -> None:
        """All at once: each waits in the kernel."""

        async def make(wire: Wire, settings: PortSettings) -> None:
            port = self.router.plane.ports[wire.mac_bytes]
            self.links.append((wire, await asyncio.to_thread(LeavingLink, port, settings)))

        made = await asyncio.gather(
            *(make(wire, settings) for wire, settings in wires), return_exceptions=True
        )
        for failure in filter(None, made):
            raise failure
        self.router.be_patient()

    async def clone(self) -> None:
        """All of the FIB, then every change of it, until the links have moved. VmnetError if the destination does not take it."""
        try:
            await asyncio.wait_for(self.wanted.wait(), _WANTED_S)
        except TimeoutError:
            raise WaitTimeoutError(f"the destination made no data plane within {_WANTED_S:g} s") from None
        self.router.on_change = self._change
        snapshot = self.router.fib.snapshot()
        while (chunk := await asyncio.to_thread(next, snapshot, None)) is not None:
            await self._send(chunk)
        await self._send_changes()
        await self._ask("fib", data="", complete=True)
        self.cloned.set()
        while True:
            await self._changed.wait()
            await self._send_changes()

    def _change(self, messages: bytes) -> None:
        self._changes.append(messages)
        self._changed.set()

    async def _send(self, messages: bytes) -> None:
        await self._ask("fib", data=base64.b64encode(messages).decode(), complete=False)

    async def _send_changes(self) -> None:
        """In order, however many wait for it."""
        async with self._sending:
            self._changed.clear()
            while self._changes:
                batch = [self._changes.popleft()]
                size = len(batch[0])
                while self._changes and size + len(self._changes[0]) <= _MOST_BYTES:
                    batch.append(self._changes.popleft())
                    size += len(batch[-1])
                await self._send(b"".join(batch))

    async def move(self) -> None:
        """The VM stands still: its sessions and links go over. Data goes on here until that instant, and there from then on."""
        if self._frozen is not None:
            return
        self._frozen, _none = await asyncio.gather(
            self.router.sessions.freeze(), asyncio.to_thread(self._divert)
        )
        await self._send_changes()
        await self._ask("links", sessions=self._frozen, keepalives=self._keepalives())

    def _keepalives(self) -> dict[str, Any]:
        """What the VM said last on each link, by MAC: the destination says it again until the VM runs there."""
        found = {}
        now = time.monotonic()
        for mac, watch in self.router.watches.items():
            watch.drain()
            watch.book.stop(now)
            found[mac.hex(":")] = export_book(watch.book, now)
            watch.book.resume(now)
        return found

    def _divert(self) -> None:
        links = [link for _wire, link in self.links]
        for link in links:
            link.hold()
        self.ordered = backlog.wait_until_passed()
        for link in links:
            link.divert()
            link.mute()
        self.ordered = self.ordered and all(link.ordered for link in links)

    async def come_back(self) -> None:
        """The router stays: the destination sends back what reaches it, and data is forwarded here again."""
        if self._frozen is None:
            return
        await asyncio.to_thread(self._take_back)
        try:
            await self._ask("links-back")
        finally:
            for wire, link in self.links:
                link.announce(self.router.addresses_of(wire.mac_bytes))
            await self.router.sessions.unfreeze()
            self._frozen = None
            self.router.links_are_back()

    def _take_back(self) -> None:
        for _wire, link in self.links:
            link.reconnect()
        for _wire, link in self.links:
            link.take_back()

    async def stop_groups(self) -> None:
        for wire, link in self.links:
            if wire.stretched:
                link.stop_groups()

    async def close(self, gone: bool) -> None:
        """``gone``: the router runs elsewhere; a tunnel that has become a link stays."""
        self.router.on_change = lambda messages: None
        if not gone:
            self.router.patience_ends_later()
        for wire, link in self.links:
            await asyncio.to_thread(link.close, gone and wire.stretched)
