"""How many entries of ours a switch takes, and which of those it would need it gets if that are too many. Pure.

The fixed entries come first, then stations that are bound (VMs), then the others: the first of each port, then the second of each, and
so on, so that a port that says many names crowds out itself alone; those that are there already before those that are not, and the
nearer ones before the farther. What has no entry goes by way of the controller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from controller_bridge.core.hosts import Station
from controller_bridge.openflow.flow import Flow

Key = tuple[int, int, bytes]
"""Table, priority, match."""


class Wanted(NamedTuple):
    """``level``: links to where it leads; 0 for what leads nowhere. ``mac``: of the station that it is for; empty: of none."""

    level: int
    flow: Flow
    mac: bytes = b""


@dataclass
class Room:
    """``given``: by the settings. By what a switch refuses it is halfway between what fits and what does not, until that is found."""

    given: int | None = None
    _tried: int | None = None
    _most: int = 0

    @property
    def limit(self) -> int | None:
        known = [one for one in (self.given, self._tried) if one is not None]
        return min(known) if known else None

    def refused(self, there: int, new: int) -> None:
        """The table was full when ``new`` entries were to be added (at least one) to the ``there`` of ours."""
        self._most, self._tried = there + new - 1, there + new // 2

    def taken(self, there: int) -> bool:
        """There are so many now; whether more may fit than was thought."""
        if self._tried is None or there < self._tried or self._tried >= self._most:
            return False
        self._tried = (self._tried + self._most + 1) // 2
        return True


def fit(
    wanted: Mapping[Key, Wanted], most: int, table: Collection[Key], stations: Mapping[bytes, Station]
) -> dict[Key, Wanted]:
    """``most`` of them, if there are more; all that are for no station, in any case."""
    if len(wanted) <= most:
        return dict(wanted)
    fixed = {key: one for key, one in wanted.items() if not one.mac}
    ranks = _ranks(wanted, table, stations)
    others = sorted(
        (item for item in wanted.items() if item[1].mac),
        key=lambda item: (ranks[item[1].mac], item[1].level, item[1].mac, item[0]),
    )
    # of one station that to its MAC address comes first: its priority is the lowest
    return fixed | dict(others[: max(0, most - len(fixed))])


def _ranks(
    wanted: Mapping[Key, Wanted], table: Collection[Key], stations: Mapping[bytes, Station]
) -> dict[bytes, int]:
    """0 for who is bound; of the others, the how many-th of its port it is."""
    there = {one.mac for key, one in wanted.items() if one.mac and key in table}
    at_port: Counter[tuple[str, int]] = Counter()
    ranks: dict[bytes, int] = {}
    for mac in sorted(
        {one.mac for one in wanted.values() if one.mac}, key=lambda mac: (mac not in there, mac)
    ):
        station = stations[mac]
        if not station.bound:
            at_port[station.place] += 1
        ranks[mac] = 0 if station.bound else at_port[station.place]
    return ranks
