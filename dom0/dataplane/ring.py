"""The length of a tap's ring, changed without losing what waits in it or arrives meanwhile.

While the kernel changes it, a device drops what it is given, and what does not fit into a shorter ring is dropped too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dom0.dataplane import grace, netdev, pump
from dom0.dataplane.gate import Gate
from dom0.dataplane.gate_program import Mode, Word
from dom0.dataplane.park import Park
from dom0.dataplane.sender import Sender

_DRAIN_S = 1.0
_LOOK_S = 0.005
_EMPTY_S = 0.05
"""So long the guest's frames wait at most."""
_MOST_PACKETS = 8192
_COPY_SPARE_BYTES = 160
"""Of a recorded frame, besides what its MTU allows."""


def room(recorder_bytes: int, mtu: int) -> int:
    """The length of a ring whose frames are all in the recorder's copy, too, however large: 3/4 of its memory has frames."""
    return min(_MOST_PACKETS, recorder_bytes * 3 // 4 // (mtu + _COPY_SPARE_BYTES))


def lengthen(gate: Gate, park: Park, to_tap: Sender, packets: int) -> int:
    """``packets``: at least so long. How many frames were lost meanwhile, if the host is in trouble. OSError if the tap has gone."""
    if netdev.get_queue_length(gate.tap) >= packets:
        return 0
    with _closed(gate, park, to_tap) as lost:
        netdev.set_queue_length(gate.tap, packets)
    return sum(lost)


def shorten(gate: Gate, park: Park, to_tap: Sender, packets: int, waiting: Callable[[], int]) -> bool:
    """``packets``: the new length; ``waiting()``: frames in the ring now. False: the guest left more waiting, and it stays long.

    The gate is in its old mode again when this returns.
    """
    if netdev.get_queue_length(gate.tap) == packets:
        return True
    deadline = time.monotonic() + _DRAIN_S
    while waiting() > packets:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    with _closed(gate, park, to_tap):
        fits = waiting() <= packets  # nothing comes in between any more
        if fits:
            netdev.set_queue_length(gate.tap, packets)
    return fits


@contextmanager
def emptied(gate: Gate, park: Park, to_tap: Sender, waiting: Callable[[], int]) -> Iterator[None]:
    """Nothing is in the ring, and nothing gets in, until the exit; not for certain: a slow guest may leave something there."""
    with _closed(gate, park, to_tap):
        deadline = time.monotonic() + _EMPTY_S
        while waiting() > 0 and time.monotonic() < deadline:
            time.sleep(_LOOK_S / 10)
        yield


@contextmanager
def _closed(gate: Gate, park: Park, to_tap: Sender) -> Iterator[list[int]]:
    """What the gate has let through is in the ring, and nothing gets in; what comes meanwhile does afterwards, whatever the exit.

    Afterwards the list has how many of those frames could not be.
    """
    lost: list[int] = []
    mode, leads_to = gate.mode, gate.get(Word.EXIT_IFINDEX)
    gate.mode = Mode.HOLD
    grace.wait_for_frames_under_way()
    gate.set(Word.EXIT_IFINDEX, 0)
    try:
        yield lost
    finally:
        gate.mode = Mode.CLOSE
        lost.append(pump.empty(gate, park, to_tap).missing)
        gate.mode = mode
        gate.set(Word.EXIT_IFINDEX, leads_to)
