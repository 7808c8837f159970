"""Which multicast groups a guest that is about to leave has joined: it is asked once, and heard until it goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
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
                    _ask(port)
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


def _ask(port: GuestPort) -> None:
    """On its tap: nobody else gets the question. OSError if the tap is gone, or full."""
    asker = netdev.mac_of(port.bridge)
    if asker is None:
        return
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
        tap.bind((port.tap, 0))
        tap.setblocking(False)
        for query in general_queries(asker):
            tap.send(query)
