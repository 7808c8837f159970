"""Topology pair-ovn: a client on a third chassis reaches the VM, before and after it has migrated as OVN's users do it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmnet.lab import Host, Lab, lab_up, status
from vmnet.lab.down import processes
from vmnet.lab.ovn_ports import vm_port
from vmnet.lab.paths import LabPaths
from vmnet.lab.wait import wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0
        or not all(map(shutil.which, ("libvirtd", "ovs-vswitchd", "ovn-northd", "ovn-controller"))),
        reason="needs root, libvirtd, openvswitch and OVN",
    ),
]
NAME = "labovn"
PORT = vm_port(NAME, "vm1", 0)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_up("pair-ovn", NAME, hooks=False, daemon=False) as made:
        yield made
    paths = LabPaths(NAME)
    assert not list(processes(paths))
    assert not paths.existing_netns()
    assert not paths.run.exists()
    assert not paths.var.exists()
    assert NAME not in Path("/proc/self/mountinfo").read_text()


def reaches(lab: Lab, address: str, count: int = 1) -> bool:
    argv = ["busybox", "ping", f"-c{count}", "-W1", address]
    said = lab.node("client").run(argv, check=False).stdout
    return sum(" bytes from " in line for line in said.splitlines()) == count


def reached(lab: Lab) -> None:
    """Over both protocols, with nothing lost."""
    for address in lab.vm("vm1").interfaces[0].addresses:
        assert reaches(lab, address.partition("/")[0], 3), address


def options(lab: Lab) -> dict[str, str]:
    said = (
        lab.node("central")
        .run(["ovn-nbctl", "--format=json", "get", "Logical_Switch_Port", PORT, "options"])
        .stdout
    )
    pairs = (pair.partition("=") for pair in said.strip(" {}\n").split(", "))
    return {name: value.strip('"') for name, _, value in pairs}


def chassis(lab: Lab) -> tuple[str, list[str]]:
    """Where the VM's port is, and where besides."""

    def rows(*words: str) -> list[dict[str, Any]]:
        said = json.loads(lab.node("central").run(["ovn-sbctl", "--format=json", *words]).stdout)
        return [dict(zip(said["headings"], row, strict=True)) for row in said["data"]]

    names = {row["_uuid"][1]: row["name"] for row in rows("list", "Chassis")}
    (binding,) = rows("find", "Port_Binding", f"logical_port={PORT}")
    main, more = binding["chassis"], binding["additional_chassis"]
    return names.get(main[1] if main[0] == "uuid" else "", ""), [
        names[one[1]] for one in more[1] if more[0] == "set"
    ]


def migrate(source: Host, target: str, address: str) -> subprocess.CompletedProcess[str]:
    words = ["-m", "vmnet.bench.ovn_migrate", "vm1", target, address]
    return source.run([sys.executable, *words], check=False, timeout=90)


def test_the_first_packet_into_a_tunnel_has_somewhere_to_go(lab: Lab) -> None:
    chassis = [lab.node(name) for name in ("a", "b", "gateway")]
    for node in chassis:
        known = node.run([
            "ovs-appctl", "--target=/run/openvswitch/ovs-vswitchd.ctl", "tnl/neigh/show"
        ]).stdout.split()  # fmt: skip
        assert {one.spec.underlay for one in chassis if one is not node} <= set(known)


def test_the_client_reaches_the_vm_wherever_it_is(lab: Lab) -> None:
    assert status.report(lab)["state"] == "up"
    pids = {name: node["pids"] for name, node in status.report(lab)["nodes"].items()}
    assert all("ovn-controller" in pids[name] for name in ("a", "b", "gateway"))
    assert pids["central"].keys() == {"holder", "ovn-nb", "ovn-sb", "northd"}
    reached(lab)
    for source, target in (("a", "b"), ("b", "a")):
        done = migrate(lab.host(source), target, lab.host(target).address)
        assert done.returncode == 0, done.stderr
        assert [(r.vm, r.host) for r in lab.running_vms()] == [("vm1", target)]
        wait_for(f"the port to be on {target} alone", lambda at=target: chassis(lab) == (at, []), 10)
        assert options(lab) == {"requested-chassis": target}
        reached(lab)


def test_a_migration_that_fails_leaves_the_port_where_the_vm_is(lab: Lab) -> None:
    nobody = lab.node("gateway").spec.underlay
    done = migrate(lab.host("a"), "b", nobody)
    assert done.returncode == 11
    assert done.stderr.startswith("ovn_migrate: virsh: error: ")
    wait_for("the port to be on a alone", lambda: chassis(lab) == ("a", []), 10)
    assert options(lab) == {"requested-chassis": "a"}
    reached(lab)


def test_libvirt_alone_leaves_the_port_behind_and_a_vm_that_boots_takes_it_along(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    a.run(["virsh", "migrate", "--live", "vm1", b.libvirt_uri, f"tcp://{b.address}"], timeout=60)
    address = lab.vm("vm1").interfaces[0].addresses[0].partition("/")[0]
    assert not reaches(lab, address), "its port is requested to be on a"
    b.run(["virsh", "destroy", "vm1"])
    lab.vm_define_and_start("vm1", "b")
    assert options(lab) == {"requested-chassis": "b"}
    reached(lab)
