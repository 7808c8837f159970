"""A managed migration under the meter, while something is done to a host."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vmnet.bench.child import PIPES, Child
from vmnet.bench.schemes import Scheme
from vmnet.bench.stage import CLIENT, VM, Place
from vmnet.bench.vm import end_stream

RATE_PPS = 100
MARKS_S = 180.0


@dataclass(frozen=True)
class Moved:
    """``code``: of `vmnet migrate`. ``verdict``: None when it printed none. ``lost``, ``reordered``: by the meter, both ways."""

    code: int
    verdict: dict[str, Any] | None
    lost: int
    reordered: int


def moved(scheme: Scheme, place: Place, disturb: Callable[[], None] = lambda: None) -> Moved:
    """A managed migration under the meter, from where the VM is; ``disturb`` is called as soon as pre-copy has begun."""
    source = place.settled()
    argv = [sys.executable, "-m", "vmnet.probe", place.address(), "--json", "--duration", "0"]
    meter = Child("the meter", place.lab.node(CLIENT).popen([*argv, "--rate", str(RATE_PPS)], **PIPES))
    with meter:
        meter.expect("start", lambda line: line.get("event") == "started", 60)
        with Child(
            "the migration", source.popen(scheme.argv(VM, source, place.other(source)), **PIPES)
        ) as move:
            move.expect("pre-copy", lambda line: line.get("state") == "pre-copy", MARKS_S)
            disturb()
            code = move.finish(source.limits.migrate_s)
        place.settled()
        found = end_stream(meter)
    verdict = next((line["verdict"] for line in reversed(move.lines) if "verdict" in line), None)
    return Moved(code, verdict, int(found["lost"]), int(found["reordered"]))
