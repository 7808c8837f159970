"""What `vmnet demo follow` makes of what it has seen: document, table, faults, picture. That it runs is for a lab."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmnet.demo import follow, follow_output
from vmnet.demo.follow import Phase, Story
from vmnet.demo.players import between, disconnects, percentile, rtts_ms
from vmnet.errors import LabError
from vmnet.report import follow_plots

ZERO_S = 1000.0
PHASES = [
    Phase("home", ZERO_S, ZERO_S + 5, "h1", {"c1": 2, "c2": 2, "c3": 5}),
    Phase("away", ZERO_S + 6, ZERO_S + 11, "h1", {"c1": 5, "c2": 2, "c3": 5}),
    Phase("followed", ZERO_S + 14, ZERO_S + 19, "h3", {"c1": 2, "c2": 5, "c3": 2}),
]


def second(t: int, rtt_ms: float, gap_ms: float = 50.0) -> dict[str, Any]:
    return {
        "event": "second",
        "t": ZERO_S + t,
        "rtts_ms": [rtt_ms, rtt_ms + 1, rtt_ms + 2],
        "longest_gap_ms": gap_ms,
    }


def reports(*rtts_ms: float) -> list[dict[str, Any]]:
    """So many ms in each of the phases, and a long gap while the client walks."""
    spans = ((1, 6), (6, 12), (12, 20))
    return [
        second(t, rtt, 150.0 if t == 6 else 50.0)
        for rtt, span in zip(rtts_ms, spans, strict=True)
        for t in range(*span)
    ]


def story(**changed: Any) -> Story:
    known = {"c1": reports(1.0, 4.0, 1.5), "c2": reports(1.0, 1.0, 4.0), "c3": reports(4.0, 4.0, 1.0)}
    summaries = {name: {"longest_gap_ms": 150.0} for name in known}
    made = Story(
        PHASES, ZERO_S + 5.2, 110.0, ZERO_S + 13, {"verdict": "move"}, {"clean": True}, known, summaries
    )
    return replace(made, **changed)


def test_a_second_belongs_where_it_began_and_ended() -> None:
    said = [second(t, 1) for t in range(1, 9)]
    assert [one["t"] - ZERO_S for one in between(said, ZERO_S + 2.5, ZERO_S + 6.5)] == [4, 5, 6]
    lost = {"event": "disconnected", "t": ZERO_S + 3}
    assert disconnects(between([*said, lost], ZERO_S + 2.5, ZERO_S + 6.5)) == 1
    assert rtts_ms([lost, second(1, 7)]) == [7, 8, 9]


def test_percentile() -> None:
    assert percentile([], 95) is None
    assert [percentile(range(100), percent) for percent in (0, 50, 95, 100)] == [0, 50, 95, 99]


def test_document() -> None:
    found = json.loads(json.dumps(follow_output.document(story(), {"cpus": 2})))
    assert (found["clean"], found["faults"]) == (True, [])
    assert (found["client_moved_s"], found["vm_moved_s"]) == (5.2, 13.0)
    assert [(one["name"], one["began_s"], one["vm_at"]) for one in found["phases"]] == [
        ("home", 0.0, "h1"), ("away", 6.0, "h1"), ("followed", 14.0, "h3"),
    ]  # fmt: skip
    c1 = found["clients"]["c1"]["phases"]
    assert {name: (one["hops"], one["rtt_median_ms"]) for name, one in c1.items()} == {
        "home": (2, 2), "away": (5, 5), "followed": (2, 2.5),
    }  # fmt: skip
    assert c1["away"]["rtt_count"] == 15, "five whole seconds"
    assert c1["away"]["longest_gap_ms"] == 150.0, "its walk is its own"
    assert len(found["clients"]["c1"]["seconds"]) == 19


def test_faults() -> None:
    lost = [*reports(1, 4, 1), {"event": "disconnected", "t": ZERO_S + 13}]
    known = {**story().reports, "c2": lost}
    said = follow_output.document(story(reports=known, verdict={"clean": False, "notes": ["lost 3"]}), {})
    assert said["faults"] == ["c2 was disconnected 1 times", "the migration was not clean: ['lost 3']"]
    assert said["clients"]["c2"]["phases"]["followed"]["disconnects"] == 1
    further = [*PHASES[:2], replace(PHASES[2], hops={"c1": None, "c2": 5, "c3": 2})]
    (fault,) = follow_output.document(story(phases=further), {})["faults"]
    assert fault == "c1 is None hops from the VM after it moved, 5 before"


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    follow_output.show(follow_output.document(story(), {}))
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["client", "when", "hops"]
    assert len(rows) == 9
    assert rows[1].split() == ["c1", "c1", "has", "walked", "5", "5.0", "6.0", "150.0", "0"]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = follow_output.document(story(), {})
    assert follow_plots.lines(found)["c2"][0] == (0.5, 2.0)
    assert follow_plots.top(found) == pytest.approx(1.15 * 6)
    follow_plots.draw(tmp_path / "follow.png", found)
    assert (tmp_path / "follow.png").read_bytes().startswith(b"\x89PNG")


def test_a_move_that_was_not_made_is_an_error() -> None:
    with pytest.raises(LabError, match="vm1 was not moved: it stays"):
        follow._moved([{"event": "look", "why": ["it stays"]}])
    assert (
        follow._moved([{"event": "look"}, {"event": "stop", "at": 5.0}, {"verdict": {"clean": True}}])[1]
        == 5.0
    )
