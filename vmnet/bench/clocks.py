"""How far a host's clock is from ours: asked over the pipes of the listener for QEMU's events."""

from __future__ import annotations

import time

from vmnet.bench.child import Child
from vmnet.lab.machines import clock

_QUESTIONS = 20
_ANSWER_S = 20.0


def ahead_s(listener: Child) -> float:
    """Seconds. Raises WaitTimeoutError when no answer comes."""
    return clock.ahead_s([_ask(listener) for _ in range(_QUESTIONS)])


def _ask(listener: Child) -> clock.Asked:
    assert listener.process.stdin is not None
    asked = time.time()
    listener.process.stdin.write("clock\n")
    listener.process.stdin.flush()
    line = listener.expect("time", lambda found: "clock" in found, _ANSWER_S)
    return clock.Asked(asked, float(line["clock"]), time.time())
