"""libvirtd is stopped or killed, and started, while a VM is on its way: there is one VM afterwards, and no silent loss."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import kit
import pytest

from vmnet.lab import Host, Lab, lab_up, procs
from vmnet.lab.namespace_host import NamespaceHost
from vmnet.lab.wait import wait_for

pytestmark = kit.LAB
PRE_COPY = '"state": "pre-copy"'
ROLLED_BACK, NOT_CLEAN = 7, 8


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with lab_up("pair", "lablibvirtd") as lab:
        yield lab


def restart_libvirtd(host: Host, killed: bool) -> None:
    """One on the source that is asked to end finishes the migration first, with its clients cut off."""
    assert isinstance(host, NamespaceHost)
    running = host.service("libvirtd")
    assert running is not None
    if killed:
        procs.end([running])
    else:
        procs.stop(running, 60)
    host.spawn("libvirtd", ["libvirtd", "--listen"], reaped=True)
    host.wait_libvirt()


@pytest.mark.parametrize("killed", [False, True], ids=["asked", "killed"])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_in_pre_copy(pair: Lab, side: str, killed: bool) -> None:
    source = kit.where(pair)
    destination = kit.other(pair, source)
    with kit.traffic(pair, kit.address(pair), 200) as result:
        command = [*kit.VMNET, "migrate", "--json", kit.VM, destination.name]
        run = source.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert run.stdout is not None
        for line in run.stdout:
            print(line, end="")
            if PRE_COPY in line:
                restart_libvirtd(source if side == "source" else destination, killed)
        code = run.wait(timeout=120)
        kit.settled(pair)
    here = kit.where(pair)
    print(f"libvirtd on the {side}: code {code}, the VM runs on {here.name}, {result}")
    assert code in (0, ROLLED_BACK, NOT_CLEAN)
    assert (here is source) == (code == ROLLED_BACK)
    assert result["lost"] == 0 or code == NOT_CLEAN
    for host in pair.hosts:
        wait_for(f"the daemon on {host.name} to reach libvirt", lambda host=host: host.ping()["libvirt"], 30)
    done = kit.migrate(pair, "--json")
    assert done.returncode == 0, done.stdout


def test_in_pre_copy_of_virsh_migrate(pair: Lab) -> None:
    """virsh is cut off, too, and says that it failed; libvirtd on the source finishes the migration all the same."""
    source = kit.where(pair)
    destination = kit.other(pair, source)
    with kit.traffic(pair, kit.address(pair), 200) as result:
        command = [
            "virsh",
            "migrate",
            "--live",
            "--p2p",
            kit.VM,
            destination.libvirt_uri,
            f"tcp://{destination.address}",
        ]
        run = source.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for("pre-copy", lambda: state(source) == "pre-copy", 30, 0.02)
        restart_libvirtd(source, killed=False)
        said = run.communicate(timeout=120)[0]
        kit.settled(pair)
    here = kit.where(pair)
    found = last(source)
    print(f"virsh: {run.returncode} {said.strip()}; the VM runs on {here.name}; {found}; {result}")
    assert (here is destination) == (found["state"] == "done")
    assert result["lost"] == 0 or not (found["verdict"] or {}).get("clean")


def state(host: Host) -> str:
    moving = json.loads(kit.vmnet(host, "status", "--json").stdout)["migrations"]
    return str(moving[0]["state"]) if moving else ""


def last(host: Host) -> dict[str, Any]:
    history = json.loads(kit.vmnet(host, "status", "--json").stdout)["history"]
    return max(history, key=lambda one: one["started"])
