"""Empties a park, in order, into where its frames belong; the gate then opens by itself (mode CLOSE)."""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass

from dom0.dataplane.gate import Gate
from dom0.dataplane.gate_program import Word
from dom0.dataplane.park import VNET_HEADER_BYTES, Park
from dom0.dataplane.sender import Sender

_IDLE_MS = 20


@dataclass(frozen=True)
class Pumped:
    """``sent`` and ``skipped`` frames; ``missing``: counted into the park but never found there, or refused by the next device."""

    sent: int
    skipped: int
    missing: int


def empty(gate: Gate, park: Park, sender: Sender, skip: Callable[[bytes], bool] | None = None) -> Pumped:
    """Send what waits until nothing does. ``skip``: frames (without offload header) to leave out.

    The gate is in mode CLOSE: while frames wait, new ones queue behind them; the first that finds none waiting goes straight on.
    ``RELEASED`` is stored after the frame is in the next device's hands, so none can overtake.
    """
    sent = skipped = missing = 0
    released, released_bytes = gate.get(Word.RELEASED), gate.get(Word.RELEASED_BYTES)
    waiter = select.poll()
    waiter.register(park.fd, select.POLLIN)
    while True:
        frame = park.read()
        if frame is None:
            behind = gate.get(Word.PARKED) - released
            if behind <= 0:
                return Pumped(sent, skipped, missing)
            if not waiter.poll(_IDLE_MS):
                missing += behind
                released += behind
                gate.set(Word.RELEASED, released)
            continue
        if skip is not None and skip(frame[VNET_HEADER_BYTES:]):
            skipped += 1
        else:
            try:
                sender.send(frame)
                sent += 1
            except OSError:  # the park must be emptied all the same: while anything waits, everything does
                missing += 1
        released += 1
        released_bytes += len(frame) - VNET_HEADER_BYTES
        gate.set(Word.RELEASED_BYTES, released_bytes)
        gate.set(Word.RELEASED, released)
