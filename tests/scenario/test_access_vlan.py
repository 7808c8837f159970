"""A VM in a VLAN goes to a host where its LAN is not: its old host's switch forwards for it in that VLAN, and in no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import kit
import pytest

from vmnet.lab import Host, Lab, lab_up
from vmnet.lab.wait import wait_for

pytestmark = kit.OVS_LAB
_VLAN = 7
_IN_VLAN = f"<vlan><tag id='{_VLAN}'/></vlan></interface>"


@pytest.fixture(scope="module")
def far() -> Iterator[Lab]:
    """The VM and the client's port are in the VLAN at the VM's host."""
    with lab_up(str(Path(__file__).with_name("far.yaml")), "labvlan") as lab:
        kit.where(lab).run(["ovs-vsctl", "set", "Port", "up1", f"tag={_VLAN}"])
        kit.start_anew(lab, "</interface>", _IN_VLAN)
        yield lab


def tags(host: Host) -> dict[str, object]:
    """Of each port of the host's switches."""
    listed = host.run(["ovs-vsctl", "--format=json", "--columns=name,tag", "list", "Port"]).stdout
    return dict(json.loads(listed)["data"])


def test_its_vlan_follows_it(far: Lab) -> None:
    home = kit.where(far)
    done = kit.migrate(far)
    assert kit.where(far) is not home, done.stderr
    assert done.returncode == 8, "over Open vSwitch the verdict is not certain"
    verdict = kit.last_verdict(home)
    assert not verdict["clean"]
    assert any("Open vSwitch" in note for note in verdict["notes"]), verdict
    wait_for("the VM to be reached in its VLAN", lambda: kit.answers(far), 5, 0.2)
    ours = {name: tag for name, tag in tags(home).items() if name.startswith("vmt")}
    assert list(ours.values()) == [_VLAN], "in place of the VM's port"
    done = kit.migrate(far)
    assert kit.where(far) is home, done.stderr
    assert done.returncode == 8
    wait_for("the VM to be reached at home", lambda: kit.answers(far), 5, 0.2)
    kit.settled(far)
