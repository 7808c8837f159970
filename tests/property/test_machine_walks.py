"""Every sequence of events: a side never turns back after the resume, never ends twice, never forgets to clean up."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmnet.machine import FINAL, Event, IllegalTransition, Role, State, Step, can_roll_back, step

FIRST = {Role.SOURCE: State.PREFLIGHT, Role.DESTINATION: State.PREPARING}
ATTACH = {Role.SOURCE: Step.GUARD_SOURCE, Role.DESTINATION: Step.PREPARE_DESTINATION}
DETACH = {Role.SOURCE: Step.DETACH_SOURCE, Role.DESTINATION: Step.DETACH_DESTINATION}


def walk(role: Role, events: list[Event]) -> tuple[list[State], list[Step]]:
    states, steps = [FIRST[role]], []
    for event in events:
        try:
            row = step(role, states[-1], event)
        except IllegalTransition:
            continue
        if row is not None:
            states.append(row.next)
            steps += row.steps
    return states, steps


@pytest.mark.parametrize("role", Role)
@given(events=st.lists(st.sampled_from(Event), max_size=25))
def test_any_events(role: Role, events: list[Event]) -> None:
    states, steps = walk(role, events)
    ended = [nth for nth, one in enumerate(states) if one in FINAL]
    assert ended in ([], [len(states) - 1])
    forward = [nth for nth, one in enumerate(states) if not can_roll_back(one) and one not in FINAL]
    if forward:
        assert State.ROLLING_BACK not in states and State.ROLLED_BACK not in states
    counted = Counter(steps)
    assert counted[ATTACH[role]] <= 1 and counted[DETACH[role]] <= 1
    if states[-1] in FINAL:
        assert counted[ATTACH[role]] <= counted[DETACH[role]]
    assert counted[Step.ATTACH_SOURCE] <= counted[Step.GUARD_SOURCE]
    came = role is Role.DESTINATION and bool(forward)
    runs_later = State.PAUSED in states and Step.LET_IN in steps
    assert (counted[Step.ANNOUNCE], counted[Step.ANNOUNCE_AGAIN]) == (came, runs_later)
    assert counted[Step.BIND] == (State.OPEN in states or State.PAUSED in states)
    assert counted[Step.OPEN] == (State.OPEN in states or runs_later)
    if Step.FINISH_PEER in steps:
        assert states[-1] is State.DONE and (State.RESUMED in states or State.FINISHING in states)


@pytest.mark.parametrize("role", Role)
@given(events=st.lists(st.sampled_from(Event), max_size=25), failures=st.integers(1, 3))
def test_failure_always_leads_to_an_end(role: Role, events: list[Event], failures: int) -> None:
    states, _ = walk(role, events)
    before = states[-1]
    states, _ = walk(role, [*events, *[Event.FAILED] * failures, Event.STAYED, Event.UNDONE])
    if can_roll_back(before):
        assert states[-1] is State.ROLLED_BACK
    else:
        assert states[-1] is before
