"""Empties a park, in order, into where its frames belong; the gate then opens by itself (mode CLOSE)."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dom0.dataplane import backlog
from dom0.dataplane.gate_memory import GateMemory
from dom0.dataplane.gate_program import Mode, Word
from dom0.dataplane.park import VNET_HEADER_BYTES, Park

_IDLE_MS = 20
_TRIES = 8
_LIMIT_S = 0.1
Skip = Callable[[bytes], bool]


class Exit(Protocol):
    """Where frames go on, each with its offload header."""

    def send(self, frame: bytes) -> None: ...


@dataclass(frozen=True)
class Pumped:
    """``sent`` and ``skipped`` frames; ``missing``: counted into the park but never found there, or refused by the next device."""

    sent: int
    skipped: int
    missing: int

    def __add__(self, other: Pumped) -> Pumped:
        return Pumped(self.sent + other.sent, self.skipped + other.skipped, self.missing + other.missing)


def empty_in_peace(
    gate: GateMemory, park: Park, sender: Exit, then: Mode, skip: Skip | None = None
) -> tuple[Pumped, bool]:
    """As :func:`empty`, from mode HOLD to ``then``, at a moment when nothing of what was sent is still on its way.

    What this processor sends and what another one lets through right afterwards wait in two queues. False: the host is so busy that
    these were not seen empty, or that frames come faster than they can be sent on; then new ones are let through after 0.1 s, and what
    waited follows, out of order.
    """
    deadline = time.monotonic() + _LIMIT_S
    total, passed = Pumped(0, 0, 0), False
    for _ in range(_TRIES):
        total += empty(gate, park, sender, skip, gate.get(Word.PARKED))
        passed = backlog.wait_until_passed()
        if (passed and gate.get(Word.PARKED) == gate.get(Word.RELEASED)) or time.monotonic() > deadline:
            break
    gate.mode = Mode.CLOSE
    total += empty(gate, park, sender, skip, deadline=deadline)
    gate.mode = then
    left = empty(gate, park, sender, skip)
    return total + left, passed and not (left.sent or left.missing)


def empty(
    gate: GateMemory,
    park: Park,
    sender: Exit,
    skip: Skip | None = None,
    parked: int | None = None,
    deadline: float | None = None,
) -> Pumped:
    """Send what waits until nothing does. ``skip``: frames (without offload header) to leave out.

    ``parked``: only those of the first so many that ever went into the park; ``deadline`` (monotonic): not after that.

    The gate is in mode CLOSE: while frames wait, new ones queue behind them; the first that finds none waiting goes straight on.
    ``RELEASED`` is stored after the frame is in the next device's hands, so none can overtake.
    """
    sent = skipped = missing = 0
    released, released_bytes = gate.get(Word.RELEASED), gate.get(Word.RELEASED_BYTES)
    waiter = select.poll()
    waiter.register(park.fd, select.POLLIN)
    while parked is None or released < parked:
        if deadline is not None and time.monotonic() > deadline:
            break
        frame = park.read()
        if frame is None:
            behind = (gate.get(Word.PARKED) if parked is None else parked) - released
            if behind <= 0:
                break
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
    return Pumped(sent, skipped, missing)
