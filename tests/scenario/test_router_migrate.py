"""A virtual router moves under traffic through it: no packet is lost, doubled or out of order, and no neighbour loses a session."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable

import kit
import pytest
import router_kit
from router_marks import MARKS

from vmnet.control import ControlClient
from vmnet.errors import ExitCode, LabError
from vmnet.lab import Host, Lab

pytestmark = MARKS


@pytest.mark.parametrize("turn", range(2 * router_kit.REPEAT))
def test_managed_there_and_back(pisa: Lab, turn: int) -> None:
    router_kit.forwarding(pisa)
    router_kit.settled(pisa)
    quiet = router_kit.bfd_quiet(pisa)
    downs = router_kit.bfd_downs(pisa)
    with router_kit.undisturbed(pisa) as traffic:
        verdict = router_kit.migrate(pisa)
        router_kit.wait_packets(traffic, 500)
    assert verdict["ordered"]
    host = router_kit.where(pisa)
    router_kit.wait_same_fib(pisa, host)
    router_kit.settled(pisa)
    if quiet and verdict["compute_downtime_ms"] < 200:
        assert router_kit.bfd_downs(pisa) == downs, "a BFD session went"


def test_virsh_with_hooks(pisa: Lab) -> None:
    router_kit.forwarding(pisa)
    router_kit.settled(pisa)
    with router_kit.undisturbed(pisa) as traffic:
        done = router_kit.virsh_migrate(pisa)
        assert done.returncode == 0, done.stderr
        router_kit.wait_packets(traffic, 500)
    router_kit.wait_same_fib(pisa, router_kit.where(pisa))
    router_kit.settled(pisa)


def begin(source: Host, target: Host) -> subprocess.Popen[str]:
    command = [*kit.VMNET, "migrate", "--json", router_kit.VM, target.name]
    return source.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(run: subprocess.Popen[str], sign: str, act: Callable[[], None]) -> None:
    """``act`` as soon as the command says ``sign``."""
    assert run.stdout is not None
    for line in run.stdout:
        if sign in line:
            act()
            run.communicate(timeout=60)
            return
    raise AssertionError(f"the migration never said {sign}: {run.communicate()[1]}")


def stayed(lab: Lab, source: Host) -> None:
    assert router_kit.where(lab).name == source.name
    router_kit.settled(lab)
    router_kit.wait_forwarding(source)
    router_kit.wait_same_fib(lab, source)


def test_abort_in_precopy(pisa: Lab) -> None:
    source = router_kit.forwarding(pisa)
    router_kit.settled(pisa)
    with router_kit.undisturbed(pisa) as traffic:
        run = begin(source, router_kit.other(pisa, source))
        until(run, '"state": "pre-copy"', lambda: abort(source))
        router_kit.wait_packets(traffic, 500)
    assert run.returncode == 130
    stayed(pisa, source)


def abort(host: Host) -> None:
    """As kit.abort, which means another VM."""
    ControlClient(host.daemon_socket).request("abort", vm=router_kit.VM)


def kill_incoming(lab: Lab, target: Host) -> None:
    for found in lab.running_vms():
        if (found.vm, found.host) == (router_kit.VM, target.name):
            os.kill(found.pid, signal.SIGKILL)
            return
    raise LabError(f"no QEMU takes {router_kit.VM} in on {target.name}")


@pytest.mark.parametrize(
    "sign", ['"state": "pre-copy"', '"state": "stop-and-copy"'], ids=["precopy", "stopped"]
)
def test_incoming_qemu_killed(pisa: Lab, sign: str) -> None:
    """The links may have moved already when the VM stays after all: they come back, and nothing is lost on the way."""
    source = router_kit.forwarding(pisa)
    router_kit.settled(pisa)
    target = router_kit.other(pisa, source)
    with router_kit.undisturbed(pisa) as traffic:
        run = begin(source, target)
        until(run, sign, lambda: kill_incoming(pisa, target))
        router_kit.wait_packets(traffic, 500)
    assert run.returncode != 0
    stayed(pisa, source)


def test_a_router_without_its_routes_is_not_migrated(pisa: Lab) -> None:
    """It would forward by a part of its table: refused, with the reason, and nothing touched."""
    source = router_kit.forwarding(pisa)
    router_kit.remove(source)
    with router_kit.undisturbed(pisa) as traffic:
        router_kit.add(source)
        status = json.loads(kit.vmnet(source, "router", "list", "--json").stdout)["routers"][0]
        assert not status["synchronised"], "too quick for this test"
        done = kit.vmnet(source, "migrate", router_kit.VM, router_kit.other(pisa, source).name)
        assert done.returncode == ExitCode.REFUSED
        assert "not all routes of router VM 'vr1' are here yet" in done.stderr
        router_kit.wait_packets(traffic, 500)
    router_kit.wait_forwarding(source)
    router_kit.settled(pisa)
