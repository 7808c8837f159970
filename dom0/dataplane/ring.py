"""The length of a tap's ring, changed without losing what waits in it or arrives meanwhile.

While the kernel changes it, a device drops what it is given, and what does not fit into a shorter ring is dropped too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dom0.dataplane import netdev, pump
from dom0.dataplane.gate import Gate
from dom0.dataplane.gate_program import Mode
from dom0.dataplane.park import Park
from dom0.dataplane.sender import Sender

_DRAIN_S = 1.0
_LOOK_S = 0.005


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
    gate.mode = Mode.HOLD
    fits = waiting() <= packets  # nothing comes in between any more
    if fits:
        netdev.set_queue_length(gate.tap, packets)
    gate.mode = Mode.CLOSE
    pump.empty(gate, park, to_tap)
    gate.mode = before
    return fits
