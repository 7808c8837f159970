"""A VM moves over real OpenFlow switches that learn nothing: the daemons tell them, and the traffic does not notice."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import pytest

from vmnet.errors import RefusedError
from vmnet.lab import Lab, lab_up
from vmnet.machine import Role, State

pytestmark = kit.OVS_LAB
MAC = "52:54:00:00:04:01"
WAYS = {"a": {"s1": "s2", "s2": "a", "s3": "s2"}, "b": {"s1": "s3", "s2": "s3", "s3": "b"}}
"""Where each switch sends what is for the VM, by the host that it is on: every way a shortest one."""


@pytest.fixture(scope="module")
def told() -> Iterator[Lab]:
    with lab_up(str(Path(__file__).with_name("told.yaml")), "labtold") as lab:
        yield lab


def ways(lab: Lab) -> dict[str, str]:
    """Switch -> the port that its table names for the VM."""
    found = {}
    for switch in ("s1", "s2", "s3"):
        command = ["ovs-ofctl", "--names", "--no-stats", "dump-flows", "switch", f"dl_dst={MAC}"]
        said = lab.node(switch).run(command).stdout
        found[switch] = ",".join(re.findall(r"actions=output:(\S+)", said))
    return found


def nothing_lost(result: dict[str, Any]) -> None:
    assert (result["lost"], result["reordered"]) == (0, 0), result


@pytest.mark.parametrize("rate", [100, 1000])
def test_managed_loses_duplicates_and_reorders_nothing(told: Lab, rate: int) -> None:
    source = kit.where(told)
    assert ways(told) == WAYS[source.name]
    with kit.traffic(told, kit.address(told), rate) as result:
        verdict = kit.verdict(kit.migrate(told))
    nothing_lost(result)
    assert result["duplicated"] <= verdict["possible_duplicates"]
    assert verdict["ordered"] and verdict["rerouted"]
    assert ways(told) == WAYS[kit.other(told, source).name]
    kit.settled(told)


def test_virsh_with_hooks_loses_and_reorders_nothing(told: Lab) -> None:
    source = kit.where(told)
    with kit.traffic(told, kit.address(told)) as result:
        done = kit.virsh_migrate(told)
    assert done.returncode == 0, done.stderr
    nothing_lost(result)
    assert result["duplicated"] <= 5
    kit.settled(told)
    assert ways(told) == WAYS[kit.other(told, source).name]


@pytest.mark.parametrize(
    "state", [State.PRECOPY, State.SWITCHOVER, State.STOPPED, State.RESUMED, State.FINISHING]
)
def test_the_fabric_leads_to_the_vm_after_a_daemon_was_killed(
    told: Lab, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    source = kit.where(told)
    kit.crash_in(monkeypatch, source, Role.SOURCE, state)
    kit.migrate(told)
    kit.start_again(source)
    kit.settled(told)
    assert ways(told) == WAYS[kit.where(told).name]
    with kit.traffic(told, kit.address(told), 200) as result:
        pass
    assert result["lost"] == 0


def test_aborted_when_the_fabric_had_been_told_already(told: Lab) -> None:
    """Between cut-over and the guest's resume, if the host is quick enough for that: it may be too late, and the VM has gone.

    Either way the tables lead to where the VM is. What is on its way when a tap goes is lost, some ten ms at most.
    """
    source = kit.where(told)
    with kit.traffic(told, kit.address(told)) as result:
        command = [*kit.VMNET, "migrate", "--json", kit.VM, kit.other(told, source).name]
        run = source.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert run.stdout is not None
        for line in run.stdout:
            event = json.loads(line)
            if event.get("event") == "fabric" and event.get("step") == "cut-over":
                with contextlib.suppress(RefusedError):  # it runs there already
                    kit.abort(source)
                break
        run.communicate(timeout=60)
        kit.settled(told)
        assert ways(told) == WAYS[kit.where(told).name]
        assert told.node("client").run(["busybox", "ping", "-c3", "-W1", kit.address(told)]).returncode == 0
    assert result["lost"] < 300 and result["back"]["lost"] == 0, result
