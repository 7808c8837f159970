"""The daemon is killed (-9) in the midst of a router's migration: its VM and its data plane end up on one host, the same one."""

from __future__ import annotations

import os

import kit
import pytest
import router_kit
from router_marks import MARKS

from vmnet.lab import Host, Lab, routing
from vmnet.lab.wait import wait_for
from vmnet.machine import Role, State

pytestmark = [*MARKS, pytest.mark.timeout(200)]
_ALWAYS = [
    (Role.SOURCE, State.STOPPED),
    (Role.DESTINATION, State.RESUMED),
]
_MORE = [
    # half a minute until the destination gives the source's daemon up
    (Role.SOURCE, State.RESUMED),
    (Role.DESTINATION, State.EXPECTING),
    (Role.SOURCE, State.PRECOPY),
    (Role.SOURCE, State.SWITCHOVER),
    (Role.SOURCE, State.FINISHING),
    (Role.SOURCE, State.DONE),
    (Role.DESTINATION, State.PREPARED),
    (Role.DESTINATION, State.READY),
    (Role.DESTINATION, State.OPEN),
    (Role.DESTINATION, State.DONE),
]
CASES = _ALWAYS + (_MORE if os.environ.get("VMNET_TEST_REPEAT") else [])


def crash_in(monkeypatch: pytest.MonkeyPatch, host: Host, role: Role, state: State) -> None:
    monkeypatch.setenv("VMNET_CRASH_AT", f"{role.value}:{state.value}")
    host.restart_daemon()
    monkeypatch.delenv("VMNET_CRASH_AT")


@pytest.mark.parametrize(("role", "state"), CASES, ids=lambda one: one.value)
def test_killed(pisa: Lab, monkeypatch: pytest.MonkeyPatch, role: Role, state: State) -> None:
    source = router_kit.forwarding(pisa)
    router_kit.settled(pisa)
    target = router_kit.other(pisa, source)
    victim = source if role is Role.SOURCE else target
    crash_in(monkeypatch, victim, role, state)
    router_kit.wait_forwarding(source)
    routing.wait_converged(pisa)
    with router_kit.streams.flowing(pisa, router_kit.WAYS) as traffic:
        command = [*kit.VMNET, "migrate", "--json", router_kit.VM, target.name]
        said = source.run(command, check=False, timeout=90)
        print(said.stdout[-600:], said.stderr)
        wait_for("the daemon to be killed", lambda: victim.service("dom0d") is None, 20, 0.05)
        victim.start_daemon()
        victim.wait_daemon()
        router_kit.settled(pisa)
    here = router_kit.where(pisa)
    print(
        f"killed: {role.value} {state.value}: the router is on {here.name}, from {source.name}; {traffic.lost} packets lost"
    )
    print(*traffic.results, sep="\n")
    router_kit.wait_forwarding(here)
    routing.wait_converged(pisa)
    router_kit.wait_same_fib(pisa, here)
    with router_kit.undisturbed(pisa) as after:
        router_kit.wait_packets(after, 500)
