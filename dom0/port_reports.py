"""Which multicast groups a guest that is about to leave has joined: it is asked once, and heard until it goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from dom0.dataplane import netdev
from dom0.dataplane.group_reports import ReportListener, general_queries
from dom0.guest_port import GuestPort

_DRAIN_S: Final = 1.0


class ReportWatch:
    """``ports``: the guest's."""

    def __init__(self, ports: Sequence[GuestPort], log: logging.Logger) -> None:
        self._ports, self._log = ports, log
        self._listeners: dict[bytes, ReportListener] = {}

    async def keep_listening(self) -> None:
        """Until cancelled, or the taps are gone."""
        with contextlib.ExitStack() as stack:
            try:
                for port in self._ports:
                    listener = ReportListener(port.tap, port.mac)
                    self._listeners[port.mac] = stack.enter_context(contextlib.closing(listener))
                    if (asker := port.asker) is not None:
                        port.ask(general_queries(asker))
            except OSError as error:
                self._log.debug("the guest's multicast groups are not known: %s", error)
            while any(netdev.exists(port.tap) for port in self._ports):
                for listener in self._listeners.values():
                    listener.turn()
                await asyncio.sleep(_DRAIN_S)

    def to_json(self) -> Mapping[str, list[str]]:
        """By MAC address of the interface, its reports in hexadecimal."""
        return {
            mac.hex(":"): [frame.hex() for frame in listener.turn()]
            for mac, listener in self._listeners.items()
        }
