"""A router that comes to this host: its data plane stands, with every route, before its links move.

And they move before its VM runs.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dom0.claim import Wire
from dom0.dataplane import backlog
from dom0.dataplane.port_settings import PortSettings
from dom0.fib.message import MalformedError
from dom0.router.arriving_link import ArrivingLink
from dom0.router.keepalive_handover import import_book
from dom0.router.router import Router
from vmnet.errors import PeerError

_MOST_SESSIONS = 8


class RouterArriving:
    def __init__(self, router: Router) -> None:
        self.router = router
        self.links: list[ArrivingLink] = []
        self.cloned = asyncio.Event()
        self.ordered = True
        """False: this host was too busy for it to be certain."""
        self._opening = asyncio.Lock()
        self.taken = asyncio.Event()
        """The links' announcements have come round, or are not waited for any more."""
        self.carries = False
        """The source has diverted its links to us."""
        self.returns = False
        """The links go back: nothing is opened here any more, and nothing said in the VM's name."""
        self.given_back = asyncio.Event()
        """The source forwards again, and this data plane has nothing under way any more."""
        self.sessions: list[dict[str, Any]] = []
        self.keepalives: dict[str, Any] = {}

    async def attach(self, wires: Sequence[tuple[Wire, PortSettings]]) -> None:
        """All at once: each waits in the kernel."""

        async def make(wire: Wire, settings: PortSettings) -> None:
            port = self.router.plane.ports[wire.mac_bytes]
            link = await asyncio.to_thread(ArrivingLink, port, settings, wire.stretched)
            self.links.append(link)
            if link.stretched:
                await self.router.hang_on(port, link.tunnel)

        made = await asyncio.gather(
            *(make(wire, settings) for wire, settings in wires), return_exceptions=True
        )
        for failure in filter(None, made):
            raise failure
        self.router.be_patient()

    async def fib(self, message: Mapping[str, Any]) -> None:
        """A part of the source's FIB, or a change of it. PeerError if it is malformed."""
        data = message.get("data")
        try:
            messages = base64.b64decode(data if isinstance(data, str) else "-", validate=True)
        except binascii.Error:
            raise PeerError("the peer's 'data' is no base64") from None
        if messages:
            try:
                await asyncio.to_thread(self.router.fib.install, messages)
            except MalformedError as error:
                raise PeerError(f"the peer's part of a router's table is none: {error}") from error
        if message.get("complete") is True:
            self.cloned.set()

    def note_links(self, message: Mapping[str, Any]) -> None:
        """What comes with the links: the VM's sessions with its host, and with its neighbours."""
        raw = message.get("sessions")
        found = [one for one in raw if isinstance(one, dict)] if isinstance(raw, list) else []
        self.sessions = found[:_MOST_SESSIONS]
        books = message.get("keepalives")
        self.keepalives = books if isinstance(books, dict) else {}
        self.carries = True

    def expect(self) -> None:
        self.router.refresh_addresses()
        for link in self.links:
            link.expect(self.router.addresses_of(link.settings.mac))

    async def thaw(self) -> None:
        """Before the VM runs: it goes on with the sessions it had, and does not notice."""
        if self.returns:
            return
        await self.router.sessions.thaw(self.sessions)
        self.sessions = []

    def speak(self) -> None:
        """Neighbours hear the VM's keepalives from here until it speaks itself. PeerError if the source's make no sense."""
        if self.returns:
            return
        now = time.monotonic()
        books = {
            link.settings.mac: import_book(self.keepalives[mac], link.settings.mac, now)
            for link in self.links
            if (mac := link.settings.mac.hex(":")) in self.keepalives
        }
        self.router.speak(books)

    def waiting(self) -> list[ArrivingLink]:
        """Links whose old path may still carry something."""
        return [link for link in self.links if not link.stretched and link.opened is None]

    async def open(self) -> None:
        """Let in what arrives directly. Again, or when they go back: nothing."""
        async with self._opening:
            if not self.returns:
                await self._open()
        self.taken.set()

    async def _open(self) -> None:
        if self.waiting():
            self.ordered = await asyncio.to_thread(backlog.wait_until_passed, self._tunnelled)
        await asyncio.gather(*(asyncio.to_thread(link.open) for link in self.links))
        self.ordered = self.ordered and all(link.ordered for link in self.links)

    def _tunnelled(self) -> int:
        """Frames that have come by the old path."""
        return sum(link.port.counts().tunnelled for link in self.links)

    async def go_back(self) -> None:
        self.returns = True
        self.router.hush()
        # opened afterwards, a link would let in what nothing here sends out any more
        async with self._opening:
            await asyncio.to_thread(self._go_back)
        self.given_back.set()

    def _go_back(self) -> None:
        for link in self.links:
            link.go_back()
        backlog.wait_until_passed()
        for link in self.links:
            link.mute()

    async def close(self) -> None:
        for link in self.links:
            await asyncio.to_thread(link.close)
