"""Labs whose fabric vmnet-controllerd runs: everybody is reached as soon as the lab is up, and the VM wherever it goes."""

from __future__ import annotations

from pathlib import Path

import kit
import pytest

from vmnet.errors import ConfigError
from vmnet.lab import Lab, Options, lab_up, procs, status, up
from vmnet.lab.paths import LabPaths
from vmnet.lab.wait import wait_for

pytestmark = kit.OVS_LAB
NAME = "labcontroller"


def answered(lab: Lab, client: str, address: str, count: int = 3) -> int:
    """How many of so many pings, one a second."""
    argv = ["busybox", "ping", f"-c{count}", "-W1", address]
    said = lab.node(client).run(argv, check=False).stdout
    return sum(" bytes from " in line for line in said.splitlines())


def reaches(lab: Lab, client: str, address: str) -> bool:
    return answered(lab, client, address, 1) == 1


def test_campus_is_one_network_if_it_has_its_controller() -> None:
    """The first packet to somebody behind the gateway whom nobody knows yet may be lost."""
    with lab_up("campus", NAME, vms=False, hooks=False) as lab:
        assert status.report(lab)["nodes"]["controller"]["pids"]["controllerd"]
        for address in ("10.2.0.103", "fd02::103"):
            assert answered(lab, "c1", address) >= 2, address
        assert answered(lab, "c1", "10.1.0.102") == 3, "in the same building nothing is lost"
        said = lab.node("controller").run([*kit.VMNET, "controller", "status"], check=False)
        assert said.returncode == 0, said.stderr


def test_without_daemons_campus_is_many_switches_that_forward_nothing() -> None:
    with lab_up("campus", NAME, vms=False, hooks=False, daemon=False) as lab:
        report = status.report(lab)
        assert report["state"] == "up"
        assert list(report["nodes"]["controller"]["pids"]) == ["holder"]
        assert not answered(lab, "c1", "10.1.0.102")


def test_client_and_vm_meet_wherever_the_vm_goes() -> None:
    with lab_up("pair-openflow", NAME) as lab:
        assert status.report(lab)["state"] == "up"
        for address in lab.vm("vm1").interfaces[0].addresses:
            assert answered(lab, "client", address.partition("/")[0]) == 3, address
        kit.verdict(kit.migrate(lab))
        assert [(r.vm, r.host) for r in lab.running_vms()] == [("vm1", "b")]
        wait_for("the client to reach the VM on b", lambda: reaches(lab, "client", kit.address(lab)), 10)
        controller = lab.node("controller").service("controllerd")
        assert controller is not None
        procs.end([controller])
        assert status.dead_parts(lab) == ["controller: controllerd"]
        assert answered(lab, "client", kit.address(lab)) == 3, "switches go on by what they have been told"
    assert not LabPaths(NAME).existing_netns()
    assert not LabPaths(NAME).var.exists()


def test_settings_that_the_controller_would_refuse_are_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("clients: {ctl: {controller: {gateways: [nowhere]}}}")
    with pytest.raises(ConfigError, match=r"clients.ctl.controller: 'nowhere' is no IP address"):
        up(str(file), Options(NAME))
    assert not LabPaths(NAME).run.exists()
