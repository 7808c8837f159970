"""Another station behind the VM's interface says nothing while the VM moves. The fabric finds it at the new host all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import kit
import pytest

from vmnet.lab import Lab, lab_up, routing
from vmnet.lab.wait import wait_for

pytestmark = kit.LAB
_OTHER, _OWN = "02:00:00:00:00:77", "52:54:00:00:00:01"


@pytest.fixture(scope="module")
def shell() -> Iterator[Lab]:
    with lab_up(str(Path(__file__).with_name("shell.yaml")), "labother") as lab:
        yield lab


def heard_at(lab: Lab, mac: str) -> str:
    """The port of the fabric's switch behind which it is, as the switch has learned."""
    entries = lab.node("core").run(["bridge", "fdb", "show"]).stdout.splitlines()
    return next((line.split()[2] for line in entries if line.startswith(mac)), "")


def wait_heard_at(lab: Lab, port: str) -> None:
    wait_for(f"{_OTHER} to be known at {port}", lambda: heard_at(lab, _OTHER) == port, 10, 0.1)


def test_it_is_announced_as_the_vm_itself(shell: Lab) -> None:
    speak = f"ip link set eth0 address {_OTHER}; ping -c1 -W1 10.0.0.100; ip link set eth0 address {_OWN}"
    routing.in_vm(shell, kit.VM, ["sh", "-c", f"{speak}; true"], via="client")
    wait_heard_at(shell, kit.where(shell).name)
    for migrate in (kit.migrate, kit.virsh_migrate):
        target = kit.other(shell, kit.where(shell))
        done = migrate(shell)
        assert done.returncode == 0, done.stderr
        wait_heard_at(shell, target.name)
        kit.settled(shell)
