"""The destination adds the VM's connections to its kernel's table before the VM runs, and removes them if the VM does not come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from dom0.conntrack import table, zones
from dom0.conntrack.entry import Entry, Key
from dom0.conntrack.idle_addresses import local_addresses
from dom0.conntrack.peer_form import MOST_CONNECTIONS, guest_addresses, parse_entries, parse_keys
from vmnet.errors import PeerError

_OVN: Final = "OVN numbers the zones of connection tracking by host"


class ConntrackReceiver:
    """``most``: so many connections are added for one VM. ``own_zones``: whether zones have other numbers at other hosts."""

    def __init__(
        self,
        log: logging.Logger,
        most: int = MOST_CONNECTIONS,
        own_zones: Callable[[], Awaitable[bool]] = zones.are_of_this_host,
    ) -> None:
        self._log, self._most, self._own_zones = log, most, own_zones
        self._made: set[Key] = set()
        """What was not in the table before."""
        self._kernel = asyncio.Lock()
        self._zones_differ: bool | None = None
        self._closed = False

    async def take(self, message: Mapping[str, Any], runs: bool = False) -> dict[str, Any]:
        """Adds and removes what a message lists; returns how many were refused, and why. PeerError if the message is malformed.

        ``runs``: the VM runs here already, and this kernel knows better about connections that it has.
        """
        guest = guest_addresses(message)
        new, ended = parse_entries(message.get("new"), guest), parse_keys(message.get("ended"), guest)
        async with self._kernel:
            if self._closed:
                raise PeerError("the VM does not come here")
            ours = [one for one in new if not one.key.zone] if await self._has_own_zones(new) else new
            answer = await asyncio.to_thread(self._change, ours, [] if runs else ended, not runs)
        if foreign := len(new) - len(ours):
            return {"refused": answer["refused"] + foreign, "reason": _OVN}
        return answer

    async def _has_own_zones(self, new: list[Entry]) -> bool:
        """Asked once, with the first connection that is in a zone."""
        if self._zones_differ is None and any(one.key.zone for one in new):
            self._zones_differ = await self._own_zones()
        return self._zones_differ is True

    def _change(self, new: list[Entry], ended: list[Key], replace: bool) -> dict[str, Any]:
        if not table.is_used():
            return {"refused": 0, "reason": ""}  # no filter asks for connections here
        local = local_addresses()  # of connections with this host itself its own table knows better
        wanted = [one for one in new if not one.key.has(local)]
        taken = wanted[: min(table.room(), self._most - len(self._made))]
        try:
            loaded = table.load(taken, replace)
            ours = [key for key in ended if key in self._made]
            table.remove(ours)
        except OSError as error:
            return {"refused": len(wanted), "reason": str(error)}
        self._made.update(loaded.made)
        self._made.difference_update(ours)
        over = len(wanted) - len(taken)
        reason = loaded.reason or ("its connection tracking table has no more room" if over else "")
        return {"refused": loaded.refused + over, "reason": reason}

    async def give_back(self) -> None:
        """The VM does not come: what was made for it goes."""
        async with self._kernel:
            self._closed = True
            if self._made:
                try:
                    await asyncio.to_thread(table.remove, list(self._made))
                except OSError as error:
                    self._log.warning("connections of the VM stay in this host's table: %s", error)
            self._made.clear()
