"""Changes as data: words, inverses, and the way through the journal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmnet.actions import Action, Kind

MADE = (Kind.TUNNEL, Kind.GATE, Kind.WIRE, Kind.STEER, Kind.SUSPEND, Kind.JOIN, Kind.REROUTE)
UNDOING = (
    Kind.NO_TUNNEL,
    Kind.NO_GATE,
    Kind.NO_WIRE,
    Kind.NO_STEER,
    Kind.RESUME,
    Kind.LEAVE,
    Kind.REROUTE_BACK,
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
ACTIONS = st.builds(Action, st.sampled_from(Kind), TEXT, TEXT, TEXT)


def test_every_kind_makes_undoes_or_sets() -> None:
    assert {*MADE, *UNDOING, Kind.QUEUE} == set(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_words_that_name_its_target(kind: Kind) -> None:
    words = Action(kind, "vnet7", "1000").describe()
    assert "vnet7" in words and "{" not in words


@pytest.mark.parametrize(("kind", "undoing"), list(zip(MADE, UNDOING, strict=True)))
def test_what_is_made_is_undone_and_that_is_final(kind: Kind, undoing: Kind) -> None:
    inverse = Action(kind, "target", "value").inverse()
    assert inverse == Action(undoing, "target", "value")
    assert inverse.inverse() is None


@given(TEXT, TEXT, TEXT)
def test_a_queue_length_undone_twice_is_as_it_was(target: str, value: str, before: str) -> None:
    action = Action(Kind.QUEUE, target, value, before)
    inverse = action.inverse()
    assert inverse is not None and inverse.value == before
    assert inverse.inverse() == action


@given(ACTIONS)
def test_through_the_journal(action: Action) -> None:
    assert Action.from_json(json.loads(json.dumps(action.to_json()))) == action
    assert isinstance(action.describe(), str)


@pytest.mark.parametrize("value", [{}, {"kind": "gate"}, {"kind": "fly", "target": "x"}])
def test_what_is_none_of_ours_is_refused(value: dict[str, str]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Action.from_json(value)
