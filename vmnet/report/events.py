"""Events of a migration and packets of a probe, read from JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from vmnet.errors import ConfigError

Event = Mapping[str, Any]


def load(file: Path) -> list[dict[str, Any]]:
    """Raises ConfigError when a line is no event."""
    events = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            event = flat(json.loads(line))
            events.append({"event": str(event["event"]), **event, "t": moment(event)})
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"line {number} of {file} is no event", "give a file of JSON lines") from error
    return events


def flat(line: Event) -> Event:
    """A line of the control socket holds its event or result one level down (docs/architecture.md)."""
    for name in ("event", "result"):
        inner = line.get(name)
        if isinstance(inner, dict):
            return {"event": name, **inner}
    return line


def moment(event: Event) -> float:
    """When it happened (``at``, as the kernel or QEMU stamped it) rather than when it was told of (``t``)."""
    return float(event.get("at") or event["t"])


@dataclass(frozen=True, slots=True)
class Span:
    """From one event to another, in Unix seconds."""

    name: str
    begin: float
    end: float


def first(events: Iterable[Event], name: str) -> float | None:
    return next((event["t"] for event in events if event["event"] == name), None)


def spans(events: Sequence[Event]) -> list[Span]:
    """Pre-copy passes (each until the next, the last until the stop), the divert until the stop, the guest's stop, the drain."""
    found = []
    stop, resume = first(events, "stop"), first(events, "resume")
    passes = [event["t"] for event in events if event["event"] == "pass"]
    ends = [*passes, stop] if stop is not None else passes
    for number, (begin, end) in enumerate(pairwise(ends), 1):
        if begin < end:
            found.append(Span(f"pass {number}", begin, end))
    for name, begin, end in (
        ("diverting", first(events, "divert"), stop),
        ("stopped", stop, resume),
        ("draining", resume, first(events, "marker")),
    ):
        if begin is not None and end is not None and begin < end:
            found.append(Span(name, begin, end))
    return found
