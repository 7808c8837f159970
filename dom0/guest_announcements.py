"""What a guest's new host sends in its name: where its addresses are, who is behind its interfaces, which groups it has joined.

Built before the guest runs: nothing is computed between its resume and the first announcement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dom0.claim import addresses, stations
from dom0.dataplane.announce import announcements, station_here
from dom0.dataplane.group_reports import LONGEST_REPORT_BYTES, MOST_REPORTS, is_report


class GuestAnnouncements:
    """``macs``: of the guest's interfaces."""

    def __init__(self, macs: Iterable[bytes] = ()) -> None:
        self._macs = tuple(macs)
        self._told: Mapping[str, Any] = {}
        self._own: dict[bytes, list[bytes]] = {}
        self._others: dict[bytes, list[bytes]] = {}
        self._build()

    def cover(self, macs: Iterable[bytes]) -> None:
        """The interfaces are known now."""
        self._macs = tuple(macs)
        self._build()

    def note(self, message: Mapping[str, Any]) -> None:
        """What the source says: ``addresses``, ``stations`` and ``reports``, each by MAC address. What is malformed is left out."""
        self._told = message
        self._build()

    def own(self, mac: bytes) -> list[bytes]:
        """Of the interface's own addresses: one of them comes back by the old path, and marks its end."""
        return self._own[mac]

    def others(self, mac: bytes) -> list[bytes]:
        """Of those behind the interface, and its groups."""
        return self._others[mac]

    def _build(self) -> None:
        for mac in self._macs:
            self._own[mac] = announcements(mac, addresses(self._of("addresses", mac)))
            behind = [station_here(*one) for one in stations(self._of("stations", mac), mac)]
            self._others[mac] = [*behind, *reports(self._of("reports", mac), mac)]

    def _of(self, what: str, mac: bytes) -> object:
        every = self._told.get(what)
        return every.get(mac.hex(":")) if isinstance(every, dict) else None


def reports(raw: object, mac: bytes) -> list[bytes]:
    """The multicast reports of ``mac`` in a list the peer sent, at most 64; what is none is left out."""
    found = []
    for one in raw[:MOST_REPORTS] if isinstance(raw, list) else []:
        if not isinstance(one, str) or len(one) > 2 * LONGEST_REPORT_BYTES:
            continue
        try:
            frame = bytes.fromhex(one)
        except ValueError:
            continue
        if is_report(frame, mac):
            found.append(frame)
    return found
