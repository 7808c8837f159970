"""Setting a machine's clock by ours, over the pipes of one command in the machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from threading import Timer
from typing import NamedTuple

from vmnet.errors import LabError
from vmnet.lab.machines import howto
from vmnet.lab.node import Node

_QUESTIONS = 8
_LIMIT_S = 60.0
# Each line of input is a number of seconds to step the clock by; the answer is the time.
_ANSWER = """
import sys, time
for line in sys.stdin:
    if float(line):
        time.clock_settime(time.CLOCK_REALTIME, time.time() + float(line))
    print(time.time(), flush=True)
"""


class Asked(NamedTuple):
    """Moments: we asked, the other's clock when it answered, we had the answer."""

    asked: float
    theirs: float
    answered: float


def ahead_s(answers: Iterable[Asked]) -> float:
    """By how much the other's clock is ahead, from the answer that took the least time (as RFC 5905 reckons)."""
    best = min(answers, key=lambda one: one.answered - one.asked)
    return best.theirs - (best.asked + best.answered) / 2


def set_clock(node: Node) -> None:
    """Exact to half the time of the fastest answer, some milliseconds. Raises LabError when the node does not answer."""
    argv = [howto.PYTHON, "-I", "-S", "-c", _ANSWER]
    with node.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        limit = Timer(_LIMIT_S, process.kill)
        limit.start()
        try:
            _ask(process, 0.0)  # the first answer waits for the program to start
            _ask(process, -ahead_s([_ask(process, 0.0) for _ in range(_QUESTIONS)]))
        except (OSError, ValueError):
            raise LabError(f"the clock of {node.name} could not be set") from None
        finally:
            limit.cancel()
            with suppress(OSError):
                process.communicate()


def _ask(process: subprocess.Popen[str], step_s: float) -> Asked:
    assert process.stdin is not None and process.stdout is not None
    asked = time.time()
    process.stdin.write(f"{step_s:.6f}\n")
    process.stdin.flush()
    theirs = float(process.stdout.readline())
    return Asked(asked, theirs, time.time())
