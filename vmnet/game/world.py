"""The game's rules, and what the server has of its players. Pure: the clock is an argument. ``guest/game.c`` does the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vmnet.game import wire
from vmnet.game.wire import Input, Place, Signal, State, Type

TICKS_PER_S = 20
Peer = Any
"""An address as its socket gives it; only compared here."""
SIZE = 1024
"""Places are whole numbers from 0 to below this, both ways."""
START = SIZE // 2
STEP = 8
"""The furthest that one input leads, each way."""
IDLE_S = 10.0
"""A player that has not been heard for so long has left."""


@dataclass
class Player:
    """``peer``: where it was first heard from. The same number from elsewhere is somebody else, and ignored."""

    id: int
    peer: Peer
    acked: int
    heard_s: float
    accepted: int = 0
    x: int = START
    y: int = START


class World:
    """``received`` and ``tick`` give datagrams to send, each with whom to. Nothing that is received raises or stays for ever."""

    def __init__(self) -> None:
        self.slots: list[Player | None] = [None] * wire.MAX_PLAYERS
        self.ticks = 0

    def received(self, message: bytes, peer: Peer, now_s: float) -> list[tuple[bytes, Peer]]:
        found = wire.decode_for_server(message)
        if found is None:
            return []
        slot = self._slot(found.player)
        player = None if slot is None else self.slots[slot]
        if player is not None and player.peer != peer:
            return []
        if isinstance(found, Signal):
            if slot is not None:
                self.slots[slot] = None
            return []
        if player is None:
            player = self._join(found, peer, now_s)
        if player is None:
            return [(wire.encode_signal(Signal(Type.FULL, found.player)), peer)]
        _apply(player, found, now_s)
        return []

    def tick(self, now_s: float) -> list[tuple[bytes, Peer]]:
        """Everybody's state; who has been silent for too long goes first."""
        self.ticks = (self.ticks + 1) & wire.NONE
        for slot, player in self._players():
            if now_s - player.heard_s > IDLE_S:
                self.slots[slot] = None
        places = tuple(Place(slot, player.x, player.y) for slot, player in self._players())
        return [
            (wire.encode_state(self._state(slot, player, places, now_s)), player.peer)
            for slot, player in self._players()
        ]

    def _state(self, slot: int, player: Player, places: tuple[Place, ...], now_s: float) -> State:
        hold_us = min(int((now_s - player.heard_s) * 1e6), wire.NONE)
        return State(player.id, self.ticks, player.acked, hold_us, player.accepted, slot, places)

    def _players(self) -> Iterator[tuple[int, Player]]:
        return ((slot, player) for slot, player in enumerate(self.slots) if player is not None)

    def _slot(self, player: int) -> int | None:
        return next((slot for slot, one in self._players() if one.id == player), None)

    def _join(self, found: Input, peer: Peer, now_s: float) -> Player | None:
        free = next((slot for slot, one in enumerate(self.slots) if one is None), None)
        if free is None:
            return None
        made = self.slots[free] = Player(found.player, peer, wire.NONE, now_s)
        return made


def _apply(player: Player, found: Input, now_s: float) -> None:
    if player.acked != wire.NONE and found.seq <= player.acked:
        return
    player.acked, player.heard_s = found.seq, now_s
    player.accepted = (player.accepted + 1) & wire.NONE
    player.x = _within(player.x + max(-STEP, min(STEP, found.dx)))
    player.y = _within(player.y + max(-STEP, min(STEP, found.dy)))


def _within(value: int) -> int:
    return max(0, min(SIZE - 1, value))
