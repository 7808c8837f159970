"""The transition table as a whole: its shape, not its single rows."""

import pytest

from vmnet.machine import (
    _LATE,
    FINAL,
    POINT_OF_NO_RETURN,
    TABLE,
    Event,
    IllegalTransition,
    Role,
    State,
    Step,
    can_roll_back,
    mermaid,
    step,
)

FIRST = {Role.SOURCE: State.PREFLIGHT, Role.DESTINATION: State.PREPARING}


def reachable(role: Role, start: State) -> set[State]:
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for row in TABLE:
            if row.role is role and row.state is here and row.next not in seen:
                seen.add(row.next)
                todo.append(row.next)
    return seen


def states(role: Role) -> set[State]:
    return {one for row in TABLE if row.role is role for one in (row.state, row.next)}


@pytest.mark.parametrize("role", Role)
def test_every_state_is_reached_and_leads_to_an_end(role: Role) -> None:
    assert reachable(role, FIRST[role]) == states(role)
    for state in states(role):
        assert reachable(role, state) & FINAL


@pytest.mark.parametrize("role", Role)
def test_from_the_point_of_no_return_every_way_ends_done(role: Role) -> None:
    assert reachable(role, POINT_OF_NO_RETURN) & FINAL == {State.DONE}


@pytest.mark.parametrize("role", Role)
def test_before_it_every_failure_puts_everything_back(role: Role) -> None:
    for state in states(role):
        if can_roll_back(state) and state not in (State.ABORTING, State.ROLLING_BACK):
            row = step(role, state, Event.FAILED)
            assert row is not None and row.next in (State.ABORTING, State.ROLLING_BACK, State.ROLLED_BACK), (
                state
            )
            settled = step(role, row.next, Event.STAYED) if row.next is State.ABORTING else row
            assert settled is not None
            assert reachable(role, settled.next) <= {State.ROLLING_BACK, State.ROLLED_BACK}


def test_an_abort_that_comes_too_late_goes_on_forward() -> None:
    row = step(Role.SOURCE, State.ABORTING, Event.PEER_RESUMED)
    assert row is not None and row.next is State.RESUMED


def test_done_is_reached_only_over_the_point_of_no_return() -> None:
    for row in TABLE:
        if row.next is State.DONE:
            assert not can_roll_back(row.state), row


def test_final_states_have_no_rows_and_take_every_event_that_can_be_late() -> None:
    assert not [row for row in TABLE if row.state in FINAL]
    for role in Role:
        for state in FINAL:
            for event in _LATE:
                assert step(role, state, event) is None


def test_late_events_shadow_no_row() -> None:
    shadowed = [row for row in TABLE if row.state in _LATE.get(row.event, ()) and row.event is not Event.PASS]
    assert not shadowed


def test_every_step_is_somebodys_and_says_what_it_does() -> None:
    used = {one for row in TABLE for one in row.steps}
    assert used == set(Step)
    assert len({one.value for one in Step}) == len(Step)


def test_what_is_attached_is_detached_on_every_way_out() -> None:
    for row in TABLE:
        if row.next is State.ROLLING_BACK or row.next is State.DONE:
            own = Step.DETACH_SOURCE if row.role is Role.SOURCE else Step.DETACH_DESTINATION
            assert own in row.steps, row


def test_detach_comes_after_everything_that_uses_what_is_detached() -> None:
    for row in TABLE:
        for own in (Step.DETACH_SOURCE, Step.DETACH_DESTINATION):
            if own in row.steps:
                assert set(row.steps[row.steps.index(own) + 1 :]) <= {Step.VERDICT, Step.TELL_FAILED}, row


def test_what_is_held_is_held_before_the_guest_stops() -> None:
    for row in TABLE:
        if Step.SUSPEND in row.steps:
            before = row.steps[: row.steps.index(Step.SUSPEND)]
            assert before.index(Step.HOLD) < before.index(Step.EXPECT_PEER) < before.index(Step.RELEASE)


def test_what_cannot_happen_is_said() -> None:
    with pytest.raises(IllegalTransition, match=r"source in state <?.*preflight.* got 'peer-resumed'"):
        step(Role.SOURCE, State.PREFLIGHT, Event.PEER_RESUMED)


@pytest.mark.parametrize("role", Role)
def test_the_picture_has_every_transition(role: Role) -> None:
    picture = mermaid(role)
    assert picture.startswith("stateDiagram-v2\n")
    assert f"[*] --> {FIRST[role].name}" in picture
    for row in TABLE:
        if row.role is role:
            line = next(
                one for one in picture.splitlines() if f" {row.state.name} --> {row.next.name}:" in one
            )
            assert row.event.value in line
