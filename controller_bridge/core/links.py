"""Links between switches, as LLDP says: up when both ends have heard each other, down when one has not for a while. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from controller_bridge.topology import Place

LOST_S: Final = 3.0
"""Three of the frames that are sent every second."""


class Links:
    def __init__(self) -> None:
        self._heard: dict[tuple[Place, Place], float] = {}
        """From, to -> when last."""
        self._ends: frozenset[Place] | None = None

    def heard(self, sender: Place, receiver: Place, now_s: float) -> bool:
        """A frame from ``sender`` came to ``receiver``; whether the links are others by that."""
        if (sender, receiver) in self._heard:
            self._heard[sender, receiver] = now_s
            return False
        before = self.up()
        self._ends = None
        for known in [pair for pair in self._heard if pair[1] == receiver and pair[0] != sender]:
            del self._heard[known]  # another is there now
        self._heard[sender, receiver] = now_s
        return self.up() != before

    def lost(self, place: Place) -> bool:
        """A port went down."""
        return self._forget(lambda pair: place in pair)

    def switch_lost(self, switch: str) -> bool:
        return self._forget(lambda pair: switch in (pair[0].switch, pair[1].switch))

    def expire(self, now_s: float) -> bool:
        return self._forget(lambda pair: now_s - self._heard[pair] > LOST_S)

    def _forget(self, gone: Callable[[tuple[Place, Place]], bool]) -> bool:
        lost = [pair for pair in self._heard if gone(pair)]
        if not lost:
            return False
        before = self.up()
        self._ends = None
        for pair in lost:
            del self._heard[pair]
        return self.up() != before

    def up(self) -> list[tuple[Place, Place]]:
        """Each once."""
        return sorted(pair for pair in self._heard if pair[::-1] in self._heard and pair[0] < pair[1])

    def ends(self) -> frozenset[Place]:
        """Ports at which a switch is, even if only one way has been heard of: nobody else is believed to be there."""
        if self._ends is None:
            self._ends = frozenset(place for pair in self._heard for place in pair)
        return self._ends
