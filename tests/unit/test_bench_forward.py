"""The forwarding bench: order, search, rows and summary, bars."""

import pytest

from vmnet.bench import forward, forward_rows
from vmnet.bench.forward_rows import Case, Row, highest, measured, order, reached, summarise
from vmnet.report import forward_plots


def row(path, number, arrived, **how):
    found = {"sent": arrived, "arrived": arrived, "seconds": 1.0, "cpu_s": 0.5, **how}
    return measured(Case(path, 64, 4), number, found)


def test_paths_take_turns_and_every_other_round_goes_backwards():
    found = [
        (case.path, case.size_bytes, number) for case, number in order([64, 1500], [4], ["ours", "plain"], 2)
    ]
    assert found == [
        *[("ours", 64, 0), ("plain", 64, 0), ("ours", 1500, 0), ("plain", 1500, 0)],
        *[("plain", 64, 1), ("ours", 64, 1), ("plain", 1500, 1), ("ours", 1500, 1)],
    ]


@pytest.mark.parametrize("limit", [600, 5_000, 19_999])
def test_search_ends_near_the_highest_rate_without_loss(limit):
    tried = []

    def lossless(rate):
        tried.append(rate)
        return rate <= limit

    found = highest(lossless, 500, 20_000, 8)
    assert len(tried) == 8
    assert found is not None and limit - 20_000 / 2**8 - 1 <= found <= limit


def test_search_finds_nothing_where_everything_is_lost():
    assert highest(lambda rate: False, 500, 20_000, 4) is None


def test_row():
    one = row("ours", 0, 200_000, counted=200_000)
    assert (one.pps, one.cost_ns, one.cpu_ns, one.counted) == (200_000, 5000, 2500, 200_000)
    assert row("vm", 0, 10).cpu_ns is None
    assert row("ours", 0, 0).cost_ns is None
    assert "error" not in one.to_json()


def test_ratio_is_of_the_same_round():
    rows = [
        row("ours", 0, 90),
        row("plain", 0, 100),
        row("plain", 1, 1000),
        row("ours", 1, 700),
        row("vm", 0, 10),
    ]
    summary = {entry["path"]: entry for entry in summarise([*rows, Row("ours", 64, 4, 2, error="x")])}
    assert (summary["ours"]["of_plain"]["min"], summary["ours"]["of_plain"]["max"]) == (0.7, 0.9)
    assert summary["ours"]["cpu_of_plain"] == {"median": 0.8, "min": 0.7, "q1": 0.7, "q3": 0.9, "max": 0.9}
    assert summary["vm"]["cpu_of_plain"] is None
    assert summary["ours"]["rounds"] == 2 and summary["vm"]["of_plain"]["median"] == 0.1
    assert reached(list(summary.values()))


def test_the_required_part():
    assert not reached(summarise([row("ours", 0, 70), row("plain", 0, 100)]))
    assert reached(summarise([row("ours", 0, 80), row("plain", 0, 100)]))
    assert not reached(summarise([row("ours", 0, 80)]))
    assert not reached([])


def test_table(capsys):
    forward.show([row("ours", 0, 90), row("plain", 0, 100), Row("vm", 64, 4, 0, error="gone")])
    assert "0.90" in capsys.readouterr().out
    assert forward.describe(Row("vm", 64, 4, 0, error="gone")) == "vm 64 B IPv4 round 0: gone"


def test_bars_and_picture(tmp_path):
    rows = [row("ours", 0, 90).to_json(), row("ours", 1, 95).to_json(), row("plain", 0, 100).to_json()]
    assert forward_plots.bars(rows) == {"ours": [("64 B\nIPv4", [90, 95])], "plain": [("64 B\nIPv4", [100])]}
    pytest.importorskip("matplotlib")
    assert forward_plots.draw(tmp_path, rows).stat().st_size > 1000


def test_required_part_is_what_the_bench_says():
    assert forward_rows.REQUIRED == 0.8
