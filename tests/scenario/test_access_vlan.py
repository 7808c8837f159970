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
_ADDRESS, _VLAN = "10.4.0.10", 7
_IN_VLAN = f"<vlan><tag id='{_VLAN}'/></vlan></interface>"


@pytest.fixture(scope="module")
def far() -> Iterator[Lab]:
    """The VM and the client's port are in the VLAN at the VM's host."""
    with lab_up(str(Path(__file__).with_name("far.yaml")), "labvlan") as lab:
        host = kit.where(lab)
        host.run(["ovs-vsctl", "set", "Port", "up1", f"tag={_VLAN}"])
        xml = host.run(["virsh", "dumpxml", "--migratable", kit.VM]).stdout
        host.run(["virsh", "destroy", kit.VM])
        host.run(["virsh", "create", "/dev/stdin"], text=xml.replace("</interface>", _IN_VLAN))
        ping = ["busybox", "ping", "-c1", "-W1", _ADDRESS]
        wait_for(
            "the VM to be up in the VLAN",
            lambda: lab.node("client").run(ping, check=False).returncode == 0,
            60,
            0.2,
        )
        yield lab


def tags(host: Host) -> dict[str, object]:
    """Of each port of the host's switches."""
    listed = host.run(["ovs-vsctl", "--format=json", "--columns=name,tag", "list", "Port"]).stdout
    return dict(json.loads(listed)["data"])


def test_its_vlan_follows_it(far: Lab) -> None:
    home = kit.where(far)
    with kit.traffic(far, _ADDRESS, 200) as result:
        verdict = kit.verdict(kit.migrate(far))
    assert (result["lost"], result["reordered"], verdict["lost"]) == (0, 0, 0), (result, verdict)
    ours = {name: tag for name, tag in tags(home).items() if name.startswith("vmt")}
    assert list(ours.values()) == [_VLAN], "in place of the VM's port"
    with kit.traffic(far, _ADDRESS, 200) as result:
        done = kit.migrate(far)
    assert kit.where(far) is home, done.stderr
    kit.settled(far)
