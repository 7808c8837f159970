"""The end that asks: one persistent connection to one peer, made when first needed and again after it broke."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from vmnet.config import Config
from vmnet.errors import NotFoundError, PeerError, WaitTimeoutError
from vmnet.peer import identity
from vmnet.peer.frame import HANDSHAKE_S
from vmnet.peer.link import Link, connect

log = logging.getLogger(__name__)
BACKOFF_S = (0.05, 1.0)  # after the first failure, and at most


class Client:
    """Asks one other end. A request is sent at most once: whoever gets a PeerError after a loss decides what then."""

    def __init__(self, what: str, dial: Callable[[], Awaitable[Link]]) -> None:
        """``what`` is asked, for people: "peer b"; ``dial`` raises PeerError. Connects to nobody yet."""
        self._what, self._dial = what, dial
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._backoff_s = 0.0
        self._not_before = 0.0

    async def request(self, op: str, payload: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask and return its result; ``timeout_s`` (seconds) covers connecting too.

        Raises WaitTimeoutError naming whom and op, PeerError if it cannot be reached, is not who it should be or
        sends garbage, or the VmnetError that its handler raised.
        """
        try:
            async with asyncio.timeout(timeout_s):
                link = self._link
                if link is None or not link.alive:
                    link = await self._connect()
                return await link.ask(op, payload)
        except TimeoutError:
            what = f"{self._what} did not answer '{op}' within {timeout_s:g} s"
            raise WaitTimeoutError(what, "is its daemon busy, or the network between us down?") from None

    async def clock_offset_ns(self, n: int = 8, timeout_s: float = 5.0) -> int:
        """The peer's clock minus ours, in ns, from the quickest of ``n`` round trips (error: half of that trip)."""
        best_trip, best_offset = 1 << 62, 0
        for _ in range(n):
            began, wall = time.monotonic_ns(), time.time_ns()
            theirs = (await self.request("_clock", {}, timeout_s)).get("ns")
            trip = time.monotonic_ns() - began
            if type(theirs) is not int:
                raise PeerError(f"{self._what} does not tell the time")
            if trip < best_trip:
                best_trip, best_offset = trip, theirs - (wall + trip // 2)
        return best_offset

    async def close(self) -> None:
        """End the connection; a later request would make a new one."""
        if self._link is not None:
            await self._link.close()
            self._link = None

    def end(self, barred: identity.Barred) -> None:
        """Close the connection if the other end's certificate counts no more."""
        if self._link is not None and (why := barred.why(self._link.tls)):
            log.warning("the connection to %s is closed: its certificate %s", self._what, why)
            self._link.drop()

    async def _connect(self) -> Link:
        async with self._connecting:
            if self._link is not None and self._link.alive:
                return self._link  # another request was quicker
            if self._link is not None:
                await self._link.close()
                self._link = None
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                async with asyncio.timeout(HANDSHAKE_S):
                    self._link = await self._dial()
            except TimeoutError:
                self._back_off()
                what = f"{self._what} did not complete the handshake within {HANDSHAKE_S:g} s"
                raise WaitTimeoutError(what, "is it the right address and port?") from None
            except PeerError:
                self._back_off()
                raise
            self._backoff_s = 0.0
            return self._link

    def _back_off(self) -> None:
        """Do not hammer a peer that is down: the next attempt waits, longer each time up to a second."""
        first, most = BACKOFF_S
        self._backoff_s = min(most, self._backoff_s * 2 or first)
        self._not_before = time.monotonic() + self._backoff_s


class PeerClient(Client):
    """Asks one peer."""

    def __init__(self, config: Config, peer_name: str) -> None:
        """Raises NotFoundError if ``peer_name`` is not configured. Connects to nobody yet."""
        if peer_name not in config.peers:
            known = ", ".join(config.peers) or "none"
            raise NotFoundError(
                f"no peer '{peer_name}' is configured (known: {known})", f"add [peers.{peer_name}]"
            )
        super().__init__(f"peer {peer_name}", lambda: connect(config, peer_name))
