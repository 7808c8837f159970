"""The length of a tap's ring, changed without losing what waits in it or arrives meanwhile.

While the kernel changes it, a device drops what it is given, and what does not fit into a shorter ring is dropped too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dom0.dataplane import grace, netdev, pump
from dom0.dataplane.gate import Gate
from dom0.dataplane.gate_program import Mode
from dom0.dataplane.park import Park
from dom0.dataplane.sender import Sender

_DRAIN_S = 1.0
_LOOK_S = 0.005
_MOST_PACKETS = 8192
_COPY_SPARE_BYTES = 160
"""Of a recorded frame, besides what its MTU allows."""


def room(recorder_bytes: int, mtu: int) -> int:
    """The length of a ring whose frames are all in the recorder's copy, too, however large: 3/4 of its memory has frames."""
    return min(_MOST_PACKETS, recorder_bytes * 3 // 4 // (mtu + _COPY_SPARE_BYTES))


def lengthen(gate: Gate, park: Park, to_tap: Sender, packets: int) -> int | None:
    """``packets``: the new length. The old one; None if the ring is as long already. The gate's exit is the guest, as below."""
    before = netdev.get_queue_length(gate.tap)
    if before >= packets:
        return None
    mode = gate.mode
    _close(gate)
    netdev.set_queue_length(gate.tap, packets)
    _let_in(gate, park, to_tap, mode)
    return before


def shorten(gate: Gate, park: Park, to_tap: Sender, packets: int, waiting: Callable[[], int]) -> bool:
    """``packets``: the new length; ``waiting()``: frames in the ring now. False: the guest left more waiting, and it stays long.

    The gate's exit is the guest. It is in its old mode again when this returns.
    """
    deadline = time.monotonic() + _DRAIN_S
    while waiting() > packets:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    before = gate.mode
    _close(gate)
    fits = waiting() <= packets  # nothing comes in between any more
    if fits:
        netdev.set_queue_length(gate.tap, packets)
    _let_in(gate, park, to_tap, before)
    return fits


def _close(gate: Gate) -> None:
    """What it has let through already is in the ring when this returns."""
    gate.mode = Mode.HOLD
    grace.wait_for_frames_under_way()


def _let_in(gate: Gate, park: Park, to_tap: Sender, then: Mode) -> None:
    gate.mode = Mode.CLOSE
    pump.empty(gate, park, to_tap)
    gate.mode = then
