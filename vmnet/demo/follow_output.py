"""What `vmnet demo follow` found: as a document, a table, and the faults in it. Pure but for :func:`show`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from vmnet.demo.follow import CLIENTS, WALKER, Story
from vmnet.demo.players import Report, between, disconnects, percentile, rtts_ms, seconds
from vmnet.report import table

Document = Mapping[str, Any]
_COLUMNS = ("client", "when", "hops", "RTT median ms", "RTT p95 ms", "longest gap ms", "disconnects")
_WHEN = {"home": "at first", "away": "c1 has walked", "followed": "the VM has followed"}
NOTE = (
    "Hops are links, by the switches' tables. The lab's links have no delay: what a hop costs is the time that Open vSwitch takes "
    "in user space, on this machine's processors. RTT is without the server's own part; a gap is between two states of the game, "
    "which come every 50 ms."
)


def document(story: Story, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, with times in seconds since the first phase began."""
    zero_s = story.phases[0].began_s
    faults = _faults(story)
    return {
        "demo": "follow",
        "clean": not faults,
        "faults": faults,
        "machine": dict(machine),
        "phases": [
            {
                **asdict(one),
                "began_s": round(one.began_s - zero_s, 3),
                "ended_s": round(one.ended_s - zero_s, 3),
            }
            for one in story.phases
        ],
        "client_moved_s": round(story.walked_s - zero_s, 3),
        "client_away_ms": story.away_ms,
        "vm_moved_s": round(story.moved_s - zero_s, 3),
        "look": story.look,
        "verdict": story.verdict,
        "clients": {name: _client(story, name, zero_s) for name in CLIENTS},
        "note": NOTE,
    }


def _client(story: Story, name: str, zero_s: float) -> dict[str, Any]:
    reports = story.reports[name]
    return {
        "phases": _phases(story, name),
        "disconnects": disconnects(reports),
        "longest_gap_ms": story.summaries[name]["longest_gap_ms"],
        "seconds": [
            {"t_s": round(one["t"] - zero_s, 2), "rtts_ms": one["rtts_ms"]}
            for one in reports
            if one["event"] == "second" and one["t"] - 1 >= zero_s
        ],
    }


def _phases(story: Story, name: str) -> dict[str, dict[str, Any]]:
    """Gaps and disconnects: the move before the phase included."""
    found, since_s = {}, story.phases[0].began_s
    for one in story.phases:
        with_move = [report for report in story.reports[name] if since_s < report["t"] <= one.ended_s]
        found[one.name] = {
            "hops": one.hops[name],
            **_rtt(between(story.reports[name], one.began_s, one.ended_s)),
            "longest_gap_ms": max((second["longest_gap_ms"] for second in seconds(with_move)), default=None),
            "disconnects": disconnects(with_move),
        }
        since_s = one.ended_s
    return found


def _rtt(reports: list[Report]) -> dict[str, float | int | None]:
    found = rtts_ms(reports)
    return {
        "rtt_count": len(found),
        "rtt_median_ms": round(median(found), 2) if found else None,
        "rtt_p95_ms": percentile(found, 95),
    }


def _faults(story: Story) -> list[str]:
    """What was promised and did not come true, in words."""
    wrong = [
        f"{name} was disconnected {count} times"
        for name in CLIENTS
        if (count := disconnects(story.reports[name]))
    ]
    if not story.verdict.get("clean"):
        wrong.append(f"the migration was not clean: {story.verdict.get('notes')}")
    _home, away, followed = (one.hops[WALKER] for one in story.phases)
    if away is None or followed is None or followed >= away:
        wrong.append(f"{WALKER} is {followed} hops from the VM after it moved, {away} before")
    return wrong


def show(found: Document) -> None:
    """On standard output."""
    names = ("hops", "rtt_median_ms", "rtt_p95_ms", "longest_gap_ms", "disconnects")
    table.show(
        _COLUMNS,
        [
            [client, _WHEN[phase], *(one[name] for name in names)]
            for client, known in found["clients"].items()
            for phase, one in known["phases"].items()
        ],
    )
