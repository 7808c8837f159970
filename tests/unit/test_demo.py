"""The demo's judgement and its output; that it runs is for ``make demo``."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vmnet.bench.rows import Row
from vmnet.demo import output
from vmnet.demo.load import Load
from vmnet.demo.run import ACTS, Played, faults

TCP = {"bytes": 1000, "ok": True, "seconds": 3.0, "longest_stall_ms": 120.4}
PING = {"sent": 300, "lost": 2, "duplicated": 0, "reordered": 0, "longest_gap_ms": 130.0}


def played(nth: int, **changed: object) -> Played:
    act = ACTS[nth]
    row = Row(
        act.scheme, 1000, 64, 0, "idle", False, lost=0, duplicated=0, reordered=0, lost_out=0, lost_back=0,
        longest_gap_ms=150.0, compute_downtime_ms=100.0, total_ms=3000.2,
    )  # fmt: skip
    return Played(act, act.title.format("a", "b"), replace(row, **changed), Load({"tcp": TCP, "ping": PING}))


def test_with_vmnet_nothing_may_be_lost() -> None:
    assert faults([played(0), played(1), played(2, lost=200, lost_out=200)]) == []
    (said,) = faults([played(1, lost=3, lost_out=1, lost_back=2)])
    assert said.endswith("1 lost on the way to the guest, 2 on the way back")


@pytest.mark.parametrize("what", ["duplicated", "reordered"])
def test_only_a_managed_migration_promises_no_duplicates_and_order(what: str) -> None:
    assert faults([played(1, **{what: 1})]) == []
    assert faults([played(0, **{what: 1})]) == [f"vmnet migrate vm1, a -> b: 1 {what}"]


def test_a_migration_that_failed_is_a_fault() -> None:
    assert faults([played(0, error="no way")]) == ["vmnet migrate vm1, a -> b: no way"]


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Played(ACTS[2], "vmnet off", played(2, lost=207).row, Load({}, {"tcp": "it broke"}))
    output.show([played(0), broken])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["migration", "lost", "dupl."]
    assert first.split()[-10:] == ["b", "0", "0", "0", "150.0", "100.0", "3000", "ok", "120", "2"]
    assert second.split()[-3:] == ["broke", "-", "-"]
    assert list(output.notes([broken])) == ["vmnet off: tcp: it broke"]


def test_a_guest_that_went_back_is_noted() -> None:
    (note,) = output.notes([played(0, guest_resent=3, guest_forgot=0)])
    assert "3 packets sent again" in note


def test_json(tmp_path: Path) -> None:
    found = json.loads(
        json.dumps(output.to_json([played(0), played(2, lost=9)], {"cpus": 2}, [tmp_path / "x.png"]))
    )
    assert found["clean"] is True
    assert [one["lost"] for one in found["migrations"]] == [0, 9]
    assert found["migrations"][0]["tcp"] == TCP


def test_nothing_to_draw_is_no_error(tmp_path: Path) -> None:
    assert output.try_draw([played(0)], tmp_path) == ([], "")
