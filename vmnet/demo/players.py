"""Players of the lab's game, one a client, and what they have reported."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from vmnet.bench.child import PIPES, Child
from vmnet.lab import Lab

Report = Mapping[str, Any]
LIMIT_S = 0.5
"""Without a state for longer, a player counts as disconnected."""
_JOIN_S, _END_S, _SPARE_S = 30.0, 20.0, 30.0


class Players:
    """By the name of their client. Reports have ``t``, seconds since the epoch."""

    def __init__(self, children: Mapping[str, Child]) -> None:
        self._children = children

    def reports(self) -> dict[str, list[dict[str, Any]]]:
        """All until now."""
        return {name: list(child.lines) for name, child in self._children.items()}

    def play(self, count: int) -> None:
        """Until each has reported so many seconds more. WaitTimeoutError, UnavailableError."""
        since = {name: len(child.lines) for name, child in self._children.items()}
        for name, child in self._children.items():
            enough = partial(_lasts, child.lines, since[name], count)
            child.expect(f"{count} seconds of the game", enough, count + _SPARE_S)

    def end(self) -> dict[str, dict[str, Any]]:
        """They leave the game; their summaries."""
        for child in self._children.values():
            child.process.send_signal(signal.SIGTERM)
        return {
            name: child.expect("summary", lambda line: line.get("event") == "summary", _END_S)
            for name, child in self._children.items()
        }


@contextmanager
def playing(lab: Lab, clients: Iterable[str], address: str, limit_s: float = LIMIT_S) -> Iterator[Players]:
    """Players at these clients, who have joined. WaitTimeoutError, UnavailableError. They end with the block."""
    argv = [sys.executable, "-u", "-m", "vmnet.game", "play", address, "--limit", str(limit_s), "--each"]
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(Child(f"the player on {name}", lab.node(name).popen(argv, **PIPES)))
            for name in clients
        }
        for child in children.values():
            child.expect("start", lambda line: line.get("event") == "joined", _JOIN_S)
        yield Players(children)


# -- what reports say. Pure ----------------------------------------------------------------------------------------------


def _lasts(reports: Sequence[Report], begin: int, count: int, _new: Report) -> bool:
    return len(seconds(reports[begin:])) >= count


def seconds(reports: Iterable[Report]) -> list[Report]:
    return [one for one in reports if one["event"] == "second"]


def between(reports: Iterable[Report], since_s: float, until_s: float) -> list[Report]:
    """Those of seconds that began after ``since_s`` and ended before ``until_s``, and of events in between."""
    return [
        one for one in reports if since_s <= one["t"] - (one["event"] == "second") and one["t"] <= until_s
    ]


def rtts_ms(reports: Iterable[Report]) -> list[float]:
    return [rtt for one in seconds(reports) for rtt in one.get("rtts_ms", ())]


def disconnects(reports: Iterable[Report]) -> int:
    return sum(one["event"] == "disconnected" for one in reports)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value that so many percent do not exceed (nearest rank); None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else None
