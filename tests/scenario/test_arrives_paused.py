"""``virsh migrate --suspend``: the VM is at its new host and does not run there yet. What is sent to it waits."""

from __future__ import annotations

import json
from collections.abc import Iterator

import kit
import pytest

from vmnet.lab import Host, Lab, lab_up
from vmnet.lab.wait import wait_for
from vmnet.machine import Role, State

pytestmark = kit.LAB
_PACKETS = 1000


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with lab_up("pair", "labpaused") as lab:
        yield lab


def migrate_paused(source: Host, target: Host) -> None:
    options = ["--live", "--persistent", "--undefinesource", "--suspend"]
    command = ["virsh", "migrate", *options, kit.VM, target.libvirt_uri, f"tcp://{target.address}"]
    done = source.run(command, check=False, timeout=90)
    assert done.returncode == 0, done.stderr


def state_at(host: Host) -> list[str]:
    status = json.loads(kit.vmnet(host, "status", "--json").stdout)
    return [migration["state"] for migration in status["migrations"]]


def finished(source: Host) -> bool:
    history = json.loads(kit.vmnet(source, "status", "--json").stdout)["history"]
    return any(row["role"] == "source" and row["verdict"] for row in history)


def test_what_is_sent_to_it_waits_until_it_is_resumed(pair: Lab) -> None:
    source = kit.where(pair)
    target = kit.other(pair, source)
    with kit.traffic(pair, kit.address(pair), 500) as result:
        migrate_paused(source, target)
        wait_for(
            "the destination to wait for the VM's resume", lambda: state_at(target) == ["paused"], 15, 0.1
        )
        wait_for("the source's verdict", lambda: finished(source), 15, 0.1)
        verdict = kit.last_verdict(source)
        assert verdict["paused"] and not verdict["clean"]
        assert state_at(source) == [] and state_at(target) == ["paused"]
        target.run(["virsh", "resume", kit.VM])
        wait_for("the VM to run", lambda: kit.where(pair).name == target.name, 15, 0.1)
    assert result["lost"] == 0, result
    kit.settled(pair)
    for host in pair.hosts:
        assert " ERROR " not in kit.log(host)
    again = kit.verdict(kit.migrate(pair))
    assert (again["clean"], again["lost"], again["paused"]) == (True, 0, False)


def test_it_is_destroyed_without_having_run(pair: Lab) -> None:
    source = kit.where(pair)
    target = kit.other(pair, source)
    migrate_paused(source, target)
    wait_for("the destination to wait for the VM's resume", lambda: state_at(target) == ["paused"], 15, 0.1)
    target.run(["virsh", "destroy", kit.VM])
    kit.settled(pair)
    assert state_at(target) == []


def test_the_daemon_is_killed_while_it_waits(pair: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    list(pair.start_vms())
    source = kit.where(pair)
    target = kit.other(pair, source)
    kit.crash_in(monkeypatch, target, Role.DESTINATION, State.PAUSED)
    migrate_paused(source, target)
    kit.start_again(target)
    kit.settled(pair)
    target.run(["virsh", "resume", kit.VM])
    wait_for("the VM to answer", lambda: kit.answers(pair), 30, 0.2)
    assert kit.where(pair).name == target.name
    with kit.traffic(pair, kit.address(pair), 200) as result:
        pass
    assert result["lost"] == 0
