"""The daemon is killed (-9) in each state, on either side: after its restart the VM runs in one place and nothing is left over."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import kit
import pytest

from vmnet.lab import Lab, lab_up
from vmnet.machine import TABLE, Role, State

pytestmark = kit.LAB
_BEFORE_ENTERED = {State.PREFLIGHT, State.PREPARING}
_ABORTED = {State.ABORTING, State.ROLLING_BACK, State.ROLLED_BACK}


def states() -> list[tuple[Role, State]]:
    """Every state a side enters by `vmnet migrate`; test_arrives_paused.py has the other one."""
    return [
        (role, state)
        for role in Role
        for state in State
        if state is not State.PAUSED and any(r.role is role and r.next is state for r in TABLE)
    ]


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with lab_up("pair", "labcrash") as lab:
        yield lab


@pytest.mark.parametrize(("role", "state"), states(), ids=lambda one: one.value)
def test_killed(pair: Lab, monkeypatch: pytest.MonkeyPatch, role: Role, state: State) -> None:
    source = kit.where(pair)
    victim = source if role is Role.SOURCE else kit.other(pair, source)
    kit.crash_in(monkeypatch, victim, role, state)
    moment = (
        '"event": "pass"' if role is Role.DESTINATION else '"state": "pre-copy"'
    )  # each side has something to undo
    command = [*kit.VMNET, "migrate", "--json", kit.VM, kit.other(pair, source).name]
    run = source.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.stdout is not None
    for line in run.stdout:
        if state in _ABORTED and moment in line:
            kit.abort(source)
    run.wait(timeout=90)
    if state is State.LEFT and victim.service("dom0d") is not None:
        pytest.skip("libvirt was slower than the drain this time: the source was never in this state")
    kit.start_again(victim)
    kit.settled(pair)
    here = kit.where(pair)
    print(
        f"killed: {role.value} {state.value}: the VM runs on {'the source' if here is source else here.name}"
    )
    with kit.traffic(pair, kit.address(pair), 200) as result:
        pass
    assert result["lost"] == 0
