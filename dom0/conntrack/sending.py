"""The host that a VM leaves: its connections are sent to the other host again and again, until the VM has stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any, Final, TypeVar

from dom0.claim import MOST_ADDRESSES
from dom0.conntrack import table
from dom0.conntrack.changes import Changes, SentEntries
from dom0.conntrack.entry import TCP, Entry
from dom0.conntrack.idle_addresses import AddressProbe
from dom0.conntrack.peer_form import MOST_A_MESSAGE, MOST_CONNECTIONS, key_to_json, to_json
from dom0.fib.message import MalformedError
from dom0.guest_port import GuestPort
from vmnet.errors import NotFoundError, VmnetError

_INTERVAL_S: Final = 1.0
_SHARE: Final = 20
"""Where a look takes long (the kernel walks its whole table for each address), it is made in a twentieth of the time."""
_OVER = (7, 8)
"""TCP_CONNTRACK_TIME_WAIT and TCP_CONNTRACK_CLOSE: nothing follows that a filter would have to let through."""

Ask = Callable[..., Awaitable[dict[str, Any]]]
Part = TypeVar("Part")


class ConntrackSender:
    """``ports``: those of the VM whose connections are sent. ``addresses``: what it has shown there by now, packed.

    ``ask``: sends a request to the other host's daemon.
    """

    def __init__(
        self,
        ports: Sequence[GuestPort],
        addresses: Callable[[], frozenset[bytes]],
        ask: Ask,
        log: logging.Logger,
    ) -> None:
        self._ports, self._ask, self._log = ports, ask, log
        self._addresses = addresses
        self._sent = SentEntries()
        self._again = asyncio.Event()
        self._last = False
        self._translated = 0
        self._found = 0
        self._refused: dict[str, int] = {}
        self._failure = ""

    async def keep_sending(self) -> None:
        """Until the last round has been asked for, and was made. Failures are logged, and end in :meth:`notes`."""
        if not self._ports or not table.count():
            return
        try:
            await AddressProbe(self._ports, self._addresses).ask()
            while True:
                last, began = self._last, time.monotonic()
                self._again.clear()
                await self._round_if_known(last)
                if last:
                    return
                pause_s = max(_INTERVAL_S, _SHARE * (time.monotonic() - began))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._again.wait(), pause_s)
        except (VmnetError, MalformedError, OSError) as error:
            self._log.warning("the VM's connections are not sent: %s", error)
            self._failure = str(error)

    def now(self) -> None:
        """The VM is about to stop."""
        self._again.set()

    def last(self) -> None:
        """The VM has stopped: nothing becomes of its connections any more."""
        self._last = True
        self._again.set()

    @property
    def carried(self) -> int:
        """Connections that the other host has got."""
        return 0 if self._failure else max(0, len(self._sent) - sum(self._refused.values()))

    def notes(self, source: str, destination: str) -> list[str]:
        """For the verdict: what does not go on at the other host, in words."""
        found = []
        if self._failure:
            found.append(
                f"the VM's connections were not all sent to {destination}, and a stateful filter there may drop them: {self._failure}"
            )
        if self._translated:
            found.append(
                f"{self._translated} of the VM's connections are translated (NAT) by {source}: "
                f"they end, for {destination} has another address"
            )
        if self._found > MOST_CONNECTIONS:
            found.append(
                f"{self._found - MOST_CONNECTIONS} of the VM's connections were too many to be sent to {destination}: "
                "a stateful filter there may drop them"
            )
        found += [
            f"{number} of the VM's connections are not known to the filter on {destination}: {reason}"
            for reason, number in self._refused.items()
        ]
        return found

    async def _round_if_known(self, last: bool) -> None:
        """The other host may not have heard yet that its claim was granted: then again, later."""
        try:
            await self._round()
        except NotFoundError:
            if last:
                raise
            self._sent = SentEntries()

    async def _round(self) -> None:
        guest = frozenset(sorted(self._addresses())[:MOST_ADDRESSES])
        entries = await asyncio.to_thread(table.about, guest, MOST_CONNECTIONS + 1)
        self._found = len(entries)
        self._translated = sum(one.translated and bool(one.status) for one in entries)
        alive = [one for one in entries[:MOST_CONNECTIONS] if _goes_on(one)]
        await self._send(guest, self._sent.changes(alive, time.monotonic()))

    async def _send(self, guest: frozenset[bytes], changes: Changes) -> None:
        known = {"addresses": [str(ip_address(one)) for one in guest]}
        for part in _parts(changes.new):
            answer = await self._ask("connections", **known, new=[to_json(one) for one in part], ended=[])
            refused = answer.get("refused")
            if type(refused) is int and refused > 0:
                reason = str(answer.get("reason"))[:200]
                self._refused[reason] = self._refused.get(reason, 0) + refused
        for keys in _parts(changes.ended):
            await self._ask("connections", **known, new=[], ended=[key_to_json(one) for one in keys])


def _goes_on(entry: Entry) -> bool:
    over = entry.key.protocol == TCP and entry.state and entry.state[0] in _OVER
    return entry.timeout_s > 0 and not entry.translated and not over and entry.key.answered() is not None


def _parts(whole: Sequence[Part]) -> Iterator[Sequence[Part]]:
    """No message of a peer is longer than its daemon reads."""
    for begin in range(0, len(whole), MOST_A_MESSAGE):
        yield whole[begin : begin + MOST_A_MESSAGE]
