"""What is said at the end."""

import json

import pytest

from vmnet.verdict import Verdict


def verdict(**fields: object) -> Verdict:
    known: dict[str, object] = {
        "vm": "blue",
        "source": "left",
        "destination": "right",
        "mode": "managed",
        "outcome": "done",
    }
    return Verdict(**{**known, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "clean"),
    [
        ({}, True),
        ({"possible_duplicates": 2, "held": 5}, True),
        ({"lost": 1}, False),
        ({"unaccounted": 1}, False),
        ({"ordered": False}, False),
        ({"outcome": "rolled-back"}, False),
        ({"unprotected": ("52:54:00:00:00:02 (type 'direct', no tap)",)}, False),
    ],
)
def test_clean(fields: dict[str, object], clean: bool) -> None:
    one = verdict(**fields)
    assert one.clean is clean
    assert one.to_json()["clean"] is clean


def test_json_holds_every_field() -> None:
    one = verdict(lost=3, notes=("a", "b"), unprotected=("c",))
    read = json.loads(json.dumps(one.to_json()))
    assert read.pop("clean") is False
    read["notes"], read["unprotected"] = tuple(read["notes"]), tuple(read["unprotected"])
    assert Verdict(**read) == one


def test_lines_of_a_success_say_the_figures() -> None:
    text = "\n".join(
        verdict(
            lost=1, possible_duplicates=2, held=3, stranded=4, compute_downtime_ms=12.34, notes=("odd",)
        ).lines()
    )
    for part in (
        "runs on right",
        "1 lost",
        "2 possibly twice",
        "none reordered",
        "held 3",
        "recovered 4",
        "12.3 ms",
        "odd",
    ):
        assert part in text
    assert "unknown" in text  # the times that were not measured


def test_lines_of_a_failure_say_why() -> None:
    assert verdict(outcome="rolled-back", notes=("disk full",)).lines() == ["blue stays on left: disk full"]
    assert verdict(outcome="rolled-back").lines() == ["blue stays on left: rolled-back"]
    lossy = verdict(outcome="rolled-back", notes=("disk full",), lost=3)
    assert lossy.lines() == ["blue stays on left: disk full; 3 packets for it were lost"]


def test_uncertain_order_is_said() -> None:
    assert "order not certain" in verdict(ordered=False).lines()[0]
