"""A VM that sends with VLAN tags: the fabric, which learns each VLAN by itself, finds it at its new host in all of them.

A Linux guest announces its VLANs itself as well, if it takes part in QEMU's announcement: that we do too is shown by
``tests/integration/test_port_stations.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import pytest

from vmnet.lab import Lab, lab_up, routing
from vmnet.lab.wait import wait_for

pytestmark = kit.OVS_LAB
_MAC = "52:54:00:00:00:01"
_IN_VLAN = (
    "ip link del eth0.10 2>/dev/null; ip link add link eth0 name eth0.10 type vlan id 10; "
    "ip addr add 10.10.0.10/24 dev eth0.10; ip link set eth0.10 up"
)
"""Anew before each migration: QEMU 7.2 without vhost forgets at its destination which VLANs the guest receives."""
_ASK_SWITCH = ["ovs-appctl", "--target=/run/openvswitch/ovs-vswitchd.ctl"]


@pytest.fixture(scope="module")
def trunk() -> Iterator[Lab]:
    with lab_up(str(Path(__file__).with_name("trunk.yaml")), "labtrunk") as lab:
        lab.node("core").run(["ovs-vsctl", "set", "Port", "tagged", "tag=10"])
        yield lab


def learned_at(lab: Lab, vlan: int) -> str:
    """The port of the fabric's switch behind which it has the VM's MAC address in that VLAN; empty: nowhere."""
    core = lab.node("core")
    (bridge,) = core.run(["ovs-vsctl", "list-br"]).stdout.split()
    for line in core.run([*_ASK_SWITCH, "fdb/show", bridge]).stdout.splitlines()[1:]:
        port, learned, mac, *_age = line.split()
        if (mac, learned) == (_MAC, str(vlan)):
            find = ["--bare", "--columns=name", "find", "Interface", f"ofport={port}"]
            return str(core.run(["ovs-vsctl", *find]).stdout.strip())
    return ""


@pytest.mark.parametrize("migrate", [kit.migrate, kit.virsh_migrate], ids=["vmnet", "virsh"])
def test_it_is_announced_in_each_vlan_of_which_it_sends_the_tags(trunk: Lab, migrate: Any) -> None:
    source = kit.where(trunk)
    target = kit.other(trunk, source)
    routing.in_vm(trunk, kit.VM, ["sh", "-c", _IN_VLAN], via="client")
    routing.in_vm(trunk, kit.VM, ["ping", "-c1", "-W2", "10.10.0.100"], via="client")
    wait_for("the VM to be known in its VLAN", lambda: learned_at(trunk, 10) == source.name, 10, 0.1)
    done = migrate(trunk)
    assert done.returncode == 0, done.stderr
    wait_for("the VLAN to be led to the new host", lambda: learned_at(trunk, 10) == target.name, 10, 0.1)
    assert learned_at(trunk, 0) == target.name
    kit.settled(trunk)
