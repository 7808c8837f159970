"""Tables, events, and that every picture is drawn."""

import io
import json

import pytest

from vmnet.errors import ConfigError
from vmnet.report import bench_plots, events, table, timeline

EVENTS = [
    {"event": "pass", "t": 1.0},
    {"event": "pass", "t": 2.0},
    {"event": "divert", "t": 2.9},
    {"event": "stop", "t": 3.0},
    {"event": "resume", "t": 3.2},
    {"event": "marker", "t": 3.25},
    {"event": "verdict", "t": 4.0},
]
PACKETS = {
    "t0": 2.5,
    "out_us": [i * 10_000 for i in range(100)],
    "out_missing": [[50, 52]],
    "acked_us": [10_000, 20_000],
    "acked_count": [1, 2],
    "back_seq": [0, 1, 3],
    "back_us": [0, 10_000, 800_000],
    "back_missing": [[2, 2]],
}


def test_plain_table_puts_numbers_to_the_right():
    assert table.plain(("name", "n"), [("a", 5), ("bb", None), ("c", 12.34)]) == (
        "name     n\na        5\nbb       -\nc     12.3\n"
    )


def test_table_is_plain_when_nobody_looks():
    out = io.StringIO()
    table.show(("a",), [(1,)], stream=out)
    assert out.getvalue() == "a\n1\n"


def test_spans():
    found = [(s.name, s.begin, s.end) for s in events.spans(EVENTS)]
    assert found == [
        ("pass 1", 1.0, 2.0),
        ("pass 2", 2.0, 3.0),
        ("diverting", 2.9, 3.0),
        ("stopped", 3.0, 3.2),
        ("draining", 3.2, 3.25),
    ]
    assert events.spans([]) == []
    assert events.spans([{"event": "resume", "t": 1.0}, {"event": "stop", "t": 2.0}]) == []


def test_moment_is_the_stamp_where_there_is_one():
    assert events.moment({"event": "stop", "t": 2.0, "at": 1.5}) == 1.5
    assert events.moment({"event": "divert", "t": 2.0, "at": 0}) == 2.0


def test_events_of_the_control_socket_are_one_level_down():
    assert events.flat({"event": {"event": "stop", "t": 1.0}}) == {"event": "stop", "t": 1.0}
    assert events.flat({"result": {"clean": True}}) == {"event": "result", "clean": True}
    assert events.flat(EVENTS[0]) == EVENTS[0]


def test_load(tmp_path):
    file = tmp_path / "events"
    file.write_text("".join(json.dumps(e) + "\n" for e in EVENTS))
    assert events.load(file) == EVENTS
    file.write_text('{"event": "stop"}\n')
    with pytest.raises(ConfigError, match="line 1 of"):
        events.load(file)


@pytest.mark.parametrize(
    ("what", "packets"), [(EVENTS, PACKETS), (EVENTS, None), ([], PACKETS), (EVENTS[:3], None), ([], None)]
)
def test_timeline_is_drawn_whatever_is_missing(tmp_path, what, packets):
    file = tmp_path / "deep" / "timeline.png"
    timeline.draw(file, what, packets, "vm1")
    assert file.read_bytes().startswith(b"\x89PNG")


def test_bench_plots_draw_what_has_values(tmp_path):
    row = {"scheme": "vmnet", "rate_pps": 100, "guest": "idle", "control": False}
    values = {"longest_gap_ms": 5.0, "lost": 0, "reordered": 0, "compute_downtime_ms": None, "total_ms": 1.0}
    files = bench_plots.draw_all(tmp_path, [{**row, **values}, {**row, "error": "x"}])
    assert [f.stem for f in files] == ["gap", "loss", "disorder", "total"]
    assert all(f.exists() for f in files)
    assert bench_plots.draw_all(tmp_path, []) == []
