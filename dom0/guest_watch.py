"""What a guest that is about to leave uses beside its own addresses: stations behind its ports, VLANs, groups, connections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from dom0.conntrack.sending import Ask, ConntrackSender
from dom0.guest_port import GuestPort
from dom0.port_reports import ReportWatch
from dom0.port_stations import StationWatch


class GuestWatch:
    """``ports``: the guest's; none: nothing is looked for. ``addresses``: what it has shown there by now, packed.

    ``groups``: whether it may be asked for its multicast groups. ``ask``: sends a request to the other host's daemon.
    """

    def __init__(
        self,
        ports: Sequence[GuestPort],
        addresses: Callable[[], frozenset[bytes]],
        ask: Ask,
        log: logging.Logger,
        groups: bool = True,
    ) -> None:
        self._stations = StationWatch([(port.tap, port.mac) for port in ports], log)
        self._reports = ReportWatch(ports if groups else [], log)
        self.connections = ConntrackSender(ports, addresses, ask, log)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """To be run until the migration ends."""
        return [
            self._stations.keep_looking(),
            self._reports.keep_listening(),
            self.connections.keep_sending(),
        ]

    def told(self) -> dict[str, Any]:
        """For the destination's announcements: fields of the request to expect the guest."""
        return {"stations": self._stations.to_json(), "reports": self._reports.to_json()}

    def notes(self, source: str, destination: str) -> list[str]:
        """For the verdict: what of it does not follow the guest, in words."""
        return [*self._stations.left_out(), *self.connections.notes(source, destination)]
