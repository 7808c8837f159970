"""A VM that has a macvtap beside its interface on a bridge: refused, or moved with a verdict that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import kit
import pytest

from vmnet.errors import ExitCode
from vmnet.lab import Lab, lab_up
from vmnet.lab.wait import wait_for

pytestmark = kit.LAB
MAC = "52:54:00:00:00:77"
INTERFACE = f"<interface type='direct'><mac address='{MAC}'/><source dev='side' mode='bridge'/><model type='virtio'/></interface>"
NAMED = f"{MAC} (type 'direct', no tap)"


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with lab_up("pair", "labkinds") as lab:
        for host in lab.hosts:
            add = "ip link add side type veth peer name side-peer; ip link set side up; ip link set side-peer up"
            host.run(["sh", "-ec", add])
        here = kit.where(lab)
        described = here.run(["virsh", "dumpxml", "--inactive", kit.VM]).stdout
        here.run(["virsh", "destroy", kit.VM])
        here.run(
            ["virsh", "define", "/dev/stdin"], text=described.replace("<serial", f"{INTERFACE}<serial", 1)
        )
        here.run(["virsh", "start", kit.VM])
        wait_for("the guest to answer", lambda: kit.answers(lab), 60, 0.5)
        yield lab


def test_it_is_refused_before_anything_is_touched(pair: Lab) -> None:
    source = kit.where(pair)
    for words in (["plan"], ["migrate"], ["migrate", "--dry-run"]):
        done = kit.vmnet(source, *words, kit.VM, kit.other(pair, source).name)
        assert done.returncode == ExitCode.REFUSED
        assert NAMED in done.stderr and "--allow-unprotected" in done.stderr
    assert kit.left_behind(pair) == [] and kit.where(pair) is source


def test_the_plan_names_it_when_it_is_allowed(pair: Lab) -> None:
    source = kit.where(pair)
    done = kit.vmnet(source, "plan", "--allow-unprotected", kit.VM, kit.other(pair, source).name)
    assert done.returncode == 0, done.stderr
    assert f"not protected: {NAMED}" in done.stdout


def test_the_other_interface_loses_nothing_and_the_verdict_names_this_one(pair: Lab) -> None:
    with kit.traffic(pair, kit.address(pair)) as result:
        done = kit.migrate(pair, "--allow-unprotected")
    assert done.returncode == ExitCode.NOT_CLEAN, done.stderr
    verdict = json.loads(done.stdout.splitlines()[-1])["verdict"]
    assert (verdict["lost"], verdict["ordered"], verdict["unprotected"]) == (0, True, [NAMED])
    assert not verdict["clean"]
    assert (result["lost"], result["reordered"]) == (0, 0)
    kit.settled(pair)


def test_hooks_protect_what_they_can(pair: Lab) -> None:
    source = kit.where(pair)
    with kit.traffic(pair, kit.address(pair)) as result:
        done = kit.virsh_migrate(pair)
        assert done.returncode == 0, done.stderr
    kit.settled(pair)
    assert result["lost"] == 0
    assert f"nothing can be held at {NAMED}" in kit.log(source)
    assert kit.last_verdict(source)["unprotected"] == [NAMED]
