"""How far a host's clock is from ours: asked over the pipes of the listener for QEMU's events."""

from __future__ import annotations

import time
from collections.abc import Iterable

from vmnet.bench.child import Child

_QUESTIONS = 20
_ANSWER_S = 20.0


def ahead_s(listener: Child) -> float:
    """Seconds, from the answer that took the least time. Raises WaitTimeoutError when none comes."""
    return best(_ask(listener) for _ in range(_QUESTIONS))


def best(answers: Iterable[tuple[float, float, float]]) -> float:
    """From moments: asked, the other's clock, answered. The other looked at its clock somewhere in between (RFC 5905)."""
    asked, theirs, answered = min(answers, key=lambda found: found[2] - found[0])
    return theirs - (asked + answered) / 2


def _ask(listener: Child) -> tuple[float, float, float]:
    assert listener.process.stdin is not None
    asked = time.time()
    listener.process.stdin.write("clock\n")
    listener.process.stdin.flush()
    line = listener.expect("time", lambda found: "clock" in found, _ANSWER_S)
    return asked, float(line["clock"]), time.time()
