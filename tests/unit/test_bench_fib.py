"""Rows of ``vmnet bench fib``: the file, the sums, a row that failed."""

import json
from pathlib import Path

from vmnet.bench.fib import FibRow, summarise, write
from vmnet.bench.fib_output import describe
from vmnet.bench.fib_stage import prefixes

ROWS = [
    FibRow("kernel", 100, 0, 2.0, 50.0, 3.0),
    FibRow("kernel", 100, 1, 1.0, 100.0, 1.0),
    FibRow("kernel", 100, 2, error="no zebra"),
    FibRow("sweep", 100, 0, 1.0, 100.0),
]


def test_sums_leave_out_what_failed() -> None:
    kernel, sweep = summarise(ROWS)
    assert kernel["runs"] == 2
    assert kernel["seconds"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert sweep["rss_mib"] is None


def test_the_file(tmp_path: Path) -> None:
    write(tmp_path / "fib.json", {"cpus": 2}, ROWS)
    found = json.loads((tmp_path / "fib.json").read_text())
    assert found["bench"] == "fib"
    assert len(found["rows"]) == 4
    assert [one.name for one in tmp_path.iterdir()] == ["fib.json"]


def test_a_failure_is_told() -> None:
    assert "no zebra" in describe(ROWS[2])


def test_prefixes_are_distinct() -> None:
    assert len(set(prefixes(70_000))) == 70_000
    assert list(prefixes(1)) == ["20.0.0.0/24"]
