"""What a restarted daemon decides, for everything it can find."""

from itertools import product

import pytest

from dom0.recovery import Found, Recovery, Where, decide
from vmnet.machine import State

EARLY = ("preflight", "starting", "pre-copy")
ALL = [one.value for one in State]
MODES = ("managed", "hooks")


@pytest.mark.parametrize(("mode", "state"), list(product(MODES, ALL)))
def test_a_vm_that_has_left_is_not_brought_back(mode: str, state: str) -> None:
    assert decide(Found("source", mode, state, Where.ABSENT)) is Recovery.FINISH


@pytest.mark.parametrize(("mode", "state", "where"), list(product(MODES, ALL, (Where.RUNNING, Where.PAUSED))))
def test_a_vm_that_is_still_at_its_source_stays_there(mode: str, state: str, where: Where) -> None:
    assert decide(Found("source", mode, state, where)) is Recovery.UNDO


@pytest.mark.parametrize(("mode", "state"), list(product(MODES, ALL)))
def test_only_our_own_early_migration_is_aborted(mode: str, state: str) -> None:
    expected = Recovery.ABORT if mode == "managed" and state in EARLY else Recovery.WAIT
    assert decide(Found("source", mode, state, Where.MIGRATING)) is expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where.RUNNING, Recovery.ADOPT),
        (Where.ABSENT, Recovery.UNDO),
        (Where.PAUSED, Recovery.WAIT),
        (Where.MIGRATING, Recovery.WAIT),
    ],
)
def test_at_the_destination_only_the_hypervisor_is_asked(where: Where, expected: Recovery) -> None:
    for mode, state in product(MODES, ALL):
        if state != State.PAUSED.value:
            assert decide(Found("destination", mode, state, where)) is expected


def test_a_vm_that_has_arrived_paused_has_come() -> None:
    for mode in MODES:
        assert decide(Found("destination", mode, State.PAUSED.value, Where.PAUSED)) is Recovery.ADOPT
        assert decide(Found("destination", mode, State.PAUSED.value, Where.ABSENT)) is Recovery.UNDO


def test_nothing_is_removed_while_the_outcome_is_open() -> None:
    for role, mode, state in product(("source", "destination"), MODES, ALL):
        assert decide(Found(role, mode, state, Where.MIGRATING)) in (Recovery.WAIT, Recovery.ABORT)
