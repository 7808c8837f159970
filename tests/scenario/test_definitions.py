"""A moved VM is defined where it runs, and nowhere else: a reboot of its old host does not start it twice."""

from __future__ import annotations

from collections.abc import Iterator

import kit
import pytest

from vmnet.errors import ExitCode
from vmnet.lab import Host, Lab, lab_up
from vmnet.lab.wait import wait_for

pytestmark = kit.LAB


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with lab_up("pair", "labdef") as lab:
        yield lab


def listed(host: Host, what: str) -> bool:
    return kit.VM in host.run(["virsh", "list", "--all", "--name", f"--{what}"]).stdout.split()


def moved(lab: Lab, *options: str) -> tuple[Host, Host]:
    """From where, to where."""
    source = kit.where(lab)
    kit.verdict(kit.migrate(lab, *options))
    kit.settled(lab)
    return source, kit.where(lab)


def test_definition_and_autostart_go_there_and_back(pair: Lab) -> None:
    kit.where(pair).run(["virsh", "autostart", kit.VM])
    for _ in range(2):
        source, here = moved(pair)
        assert listed(here, "persistent")
        wait_for("the VM to start with its new host", lambda here=here: listed(here, "autostart"), 10, 0.1)
        assert not any(listed(source, what) for what in ("persistent", "transient", "autostart"))
    here.run(["virsh", "autostart", "--disable", kit.VM])


def test_both_hosts_may_keep_it(pair: Lab) -> None:
    source, here = moved(pair, "--keep-source")
    assert listed(source, "persistent") and listed(here, "persistent")
    moved(pair)
    assert not listed(here, "persistent")


def test_it_is_not_started_a_second_time(pair: Lab) -> None:
    source, here = moved(pair, "--keep-source")
    refused = source.run(["virsh", "start", kit.VM], check=False)
    assert refused.returncode == 1 and f"runs on {here.name}" in refused.stderr
    assert kit.where(pair) is here
    here.run(["virsh", "destroy", kit.VM])
    source.run(["virsh", "start", kit.VM])  # it runs nowhere: why not
    assert kit.where(pair) is source
    here.run(["virsh", "undefine", kit.VM])
    wait_for("the guest to answer", lambda: kit.answers(pair), 60, 0.5)
    moved(pair)


def test_a_vm_without_a_definition_gets_none(pair: Lab) -> None:
    kit.where(pair).run(["virsh", "undefine", kit.VM])
    source, here = moved(pair)
    assert listed(here, "transient") and not listed(source, "persistent")
    source, here = moved(pair, "--persistent")
    assert listed(here, "persistent")


def test_the_only_definition_stays(pair: Lab) -> None:
    source, here = moved(pair, "--transient")
    assert listed(source, "persistent") and listed(here, "transient")
    moved(pair)
    assert listed(source, "persistent")


def test_a_migration_that_fails_changes_no_definition(pair: Lab) -> None:
    source = kit.where(pair)
    source.run(["virsh", "autostart", kit.VM])
    kit.other(pair, source).run(["ip", "link", "set", "br0", "name", "gone"], check=False)
    try:
        assert kit.migrate(pair).returncode in (ExitCode.REFUSED, ExitCode.ROLLED_BACK)
    finally:
        kit.other(pair, source).run(["ip", "link", "set", "gone", "name", "br0"], check=False)
    assert kit.where(pair) is source
    assert listed(source, "persistent") and listed(source, "autostart")
