"""When the guest stood still, from QEMU's own events on both hosts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vmnet.report.events import flat, moment

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Switchover:
    """Unix seconds, stamped by QEMU: the source's last STOP before the destination's RESUME."""

    stop: float
    resume: float

    @property
    def downtime_ms(self) -> float:
        return (self.resume - self.stop) * 1e3


def find(vm: str, source: Iterable[Event], destination: Iterable[Event], since: float) -> Switchover | None:
    """From the events of both hosts after ``since``; ``None`` when the guest did not go over."""
    resume = next((e["t"] for e in destination if _is(e, vm, "RESUME", since)), None)
    if resume is None:
        return None
    stops = [e["t"] for e in source if _is(e, vm, "STOP", since) and e["t"] <= resume]
    return Switchover(stops[-1], resume) if stops else None


def _is(event: Event, vm: str, name: str, since: float) -> bool:
    return event.get("vm") == vm and event.get("event") == name and event["t"] >= since


def timeline_events(
    vm: str, source: Iterable[Event], found: Switchover, since: float, own: Iterable[Event] = ()
) -> list[dict[str, Any]]:
    """Events for ``vmnet.report.timeline``: QEMU's passes, stop and resume; from the migrate command what only it knows."""
    events = [
        {"event": "pass", "t": e["t"]}
        for e in source
        if _is(e, vm, "MIGRATION_PASS", since) and e["t"] < found.stop
    ]
    events += [{"event": "stop", "t": found.stop}, {"event": "resume", "t": found.resume}]
    known = ("divert", "marker", "verdict")
    events += [
        {"event": e["event"], "t": moment(e)} for e in map(flat, own) if e.get("event") in known and "t" in e
    ]
    return sorted(events, key=lambda event: float(str(event["t"])))
