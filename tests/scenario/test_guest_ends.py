"""The VM is destroyed while it is being moved: that is what is said, and nothing of ours is left."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import kit
import pytest

from vmnet.errors import ExitCode
from vmnet.lab import Lab, lab_up

pytestmark = kit.LAB


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with lab_up("pair", "labends") as lab:
        yield lab


def test_destroyed_in_pre_copy(pair: Lab) -> None:
    source = kit.where(pair)
    source.run(["virsh", "migrate-setspeed", kit.VM, "8"])
    command = [*kit.VMNET, "migrate", "--json", kit.VM, kit.other(pair, source).name]
    run = source.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for line in run.stdout:
        if '"event": "pass"' in line:
            source.run(["virsh", "destroy", kit.VM])
            break
    _out, complaint = run.communicate(timeout=90)
    assert run.returncode == ExitCode.ROLLED_BACK
    assert f"VM '{kit.VM}' ended on {source.name} while it was being moved" in complaint
    kit.settled(pair)
    assert not any(kit.VM in kit.running(host) for host in pair.hosts)
