"""Labs come up, heal and go away without a trace. Real namespaces, libvirtd and QEMU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmnet.errors import LabError, NotFoundError
from vmnet.lab import Lab, Options, lab_up, procs, status, up
from vmnet.lab import down as down_module
from vmnet.lab.down import processes
from vmnet.lab.paths import LabPaths, known_labs
from vmnet.lab.state import lab_lock

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("libvirtd"), reason="needs root and libvirtd"),
]
NAME = "labat"
BARE = Options(NAME, vms=False, hooks=False, daemon=False)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    links = root_links()
    yield
    for name in (NAME, f"{NAME}2"):
        down_module.down(name)
        paths = LabPaths(name)
        assert not paths.run.exists()
        assert not paths.var.exists()
        assert not paths.existing_netns()
        assert name not in Path("/proc/self/mountinfo").read_text()
    assert not (root_links() - links) & {"up0", "br0", "core", "a", "b", "client", "switch"}


def root_links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def pings(lab: Lab, address: str) -> bool:
    return lab.node("client").run(["busybox", "ping", "-c1", "-W2", address], check=False).returncode == 0


def cli(*words: str) -> list[str]:
    return [sys.executable, "-m", "vmnet.cli.lab", *words]


@pytest.mark.parametrize("topology", ["pair", "pair-ovs", "routed"])
def test_vm_answers_on_both_hosts(topology: str) -> None:
    with lab_up(topology, NAME, hooks=False, daemon=False) as lab:
        v4, v6 = (a.partition("/")[0] for a in lab.vm("vm1").interfaces[0].addresses)
        assert pings(lab, v4)
        assert pings(lab, v6)
        a, b = lab.host("a"), lab.host("b")
        assert [(r.vm, r.host) for r in lab.running_vms()] == [("vm1", "a")]
        a.run(["virsh", "migrate", "--live", "vm1", b.libvirt_uri, f"tcp://{b.address}"], timeout=60)
        assert [(r.vm, r.host) for r in lab.running_vms()] == [("vm1", "b")]
        if topology == "routed":  # what a routing controller would do
            lab.node("r").run(["ip", "route", "add", v4, "dev", "b"])
            lab.node("r").run(["ip", "route", "add", v6, "dev", "b"])
        assert pings(lab, v4)
        assert pings(lab, v6)


def test_up_again_changes_nothing() -> None:
    lab, changed = up("pair", BARE)
    assert changed
    before = status.report(lab)
    again, changed = up("pair", BARE)
    assert not changed
    assert status.report(again) == before
    with pytest.raises(LabError, match="another topology"):
        up("routed", BARE)


@pytest.mark.parametrize("victims", ["everything", "libvirtd"])
def test_up_heals_a_dead_lab(victims: str) -> None:
    lab, _ = up("pair", BARE)
    doomed = set(processes(lab.paths)) if victims == "everything" else {lab.host("a").service("libvirtd")}
    procs.end(proc for proc in doomed if proc)
    assert status.report(Lab.load(NAME))["state"] == "damaged"
    healed, changed = up("pair", BARE)
    assert changed
    assert status.report(healed)["state"] == "up"


@pytest.mark.parametrize(
    ("topology", "milliseconds"),
    [
        *(("pair", moment) for moment in (60, 150, 250, 400, 700, 1500)),
        ("pisa", 450),
        ("pisa", 800),
        ("pair-ovn", 1200),
    ],
)
def test_down_after_up_was_killed_halfway(topology: str, milliseconds: int) -> None:
    with subprocess.Popen(
        cli("up", topology, "--name", NAME, "--no-hooks", "--no-daemon"), stderr=subprocess.DEVNULL
    ) as up_:
        time.sleep(milliseconds / 1000)  # the moment is what is tested, not something waited for
        up_.kill()
    down_module.down(NAME)
    assert NAME not in known_labs()
    assert not list(processes(LabPaths(NAME)))


def test_labs_do_not_touch_each_other() -> None:
    with (
        subprocess.Popen(["sleep", "60"]) as bystander,
        lab_up("pair", NAME, hooks=False, daemon=False) as lab,
    ):
        with lab_up("pair", f"{NAME}2", vms=False, hooks=False, daemon=False) as other:
            assert pings(other, "10.0.0.1")
            assert not pings(other, "10.0.0.10")
        assert pings(lab, "10.0.0.10")
        assert status.report(lab)["state"] == "up"
        assert bystander.poll() is None
        bystander.kill()


def test_vms_can_be_booted_later_and_elsewhere() -> None:
    with lab_up("pair", NAME, vms=False, hooks=False, daemon=False) as lab:
        assert lab.running_vms() == []
        lab.vm_define_and_start("vm1", "b")
        assert [(r.vm, r.host) for r in lab.running_vms()] == [("vm1", "b")]
        assert pings(lab, "10.0.0.10")


def test_command_line() -> None:
    options = ("--name", NAME, "--no-vm", "--no-hooks", "--no-daemon", "--json")
    made = subprocess.run(cli("up", "pair", *options), capture_output=True, text=True, check=True)
    assert json.loads(made.stdout)["state"] == "up"
    inside = subprocess.run(
        cli("exec", "--lab", NAME, "a", "--", "sh", "-c", "hostname; virsh list --name; ls /sys/class/net; exit 7"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert inside.returncode == 7
    assert inside.stdout.split() == ["a", "br0", "lo", "up0"]
    shown = subprocess.run(cli("status", NAME, "--json"), capture_output=True, text=True, check=True)
    assert set(json.loads(shown.stdout)["nodes"]) == {"a", "b", "client", "core"}
    assert (
        NAME
        in json.loads(subprocess.run(cli("list", "--json"), capture_output=True, check=True).stdout)["labs"]
    )
    subprocess.run(cli("down", NAME), check=True)
    gone = subprocess.run(cli("status", NAME), capture_output=True, text=True, check=False)
    assert (gone.returncode, gone.stdout) == (4, "")
    assert gone.stderr.startswith(f"error: no lab '{NAME}' is up")


def test_a_lab_that_fails_leaves_nothing(tmp_path: Path) -> None:
    unreachable = "hosts: {a: {addresses: {br0: [10.0.0.1/24]}, gateways: [10.9.9.9], bridges: {br0: {}}}}"
    (tmp_path / "bad.yaml").write_text(unreachable)
    with pytest.raises(LabError, match="failed with code"):
        up(str(tmp_path / "bad.yaml"), BARE)
    assert NAME not in known_labs()
    assert not lab_lock(LabPaths(NAME)).exists()


def test_unknown_nodes_and_labs() -> None:
    lab, _ = up("pair", BARE)
    with pytest.raises(NotFoundError, match="has no node 'z'"):
        lab.node("z")
    with pytest.raises(NotFoundError, match="is a client"):
        lab.host("client")
    with pytest.raises(NotFoundError, match="no lab 'labanone' is up"):
        Lab.load("labanone")


def test_daemon_can_crash_and_come_back() -> None:
    with lab_up("pair", NAME, vms=False) as lab:
        host = lab.host("a")
        assert host.ping() is not None
        assert (host.var_dir / "etc-libvirt" / "hooks" / "qemu.d" / "50-vmnet").exists()
        host.kill_daemon()
        assert host.ping() is None
        assert status.dead_parts(lab) == ["a: dom0d"]
        host.restart_daemon()
        assert host.ping() is not None
        assert status.dead_parts(lab) == []
