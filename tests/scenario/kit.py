"""What the migration scenarios share: moving a VM under traffic, and looking for what was left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vmnet.control import ControlClient
from vmnet.errors import LabError
from vmnet.lab import Host, Lab
from vmnet.lab.wait import wait_for
from vmnet.machine import Role, State

VMNET = [sys.executable, "-m", "vmnet.cli.entry"]
VM = "vm1"
LAB = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("libvirtd"), reason="needs root and libvirtd"),
]
OVS_LAB = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("libvirtd", "ovs-vswitchd"))),
        reason="needs root, libvirtd and openvswitch",
    ),
]


def where(lab: Lab) -> Host:
    """The one host whose libvirt says that the VM runs there."""

    def one() -> Host | None:
        found = [host for host in lab.hosts if VM in running(host)]
        assert len(found) < 2, "the VM runs twice"
        return found[0] if found else None

    try:
        return wait_for("the VM to run somewhere", one, 30, 0.1)
    except LabError as error:
        raise LabError(f"{error}: {[_last_seen(host) for host in lab.hosts]}") from None


def _last_seen(host: Host) -> str:
    """For somebody who wonders where the VM is."""
    said = host.run(["virsh", "domstate", VM, "--reason"], check=False)
    return f"{host.name}: {said.stdout.strip() or said.stderr.strip()}; {log(host)[-1500:]}"


def running(host: Host) -> list[str]:
    listed = host.run(["virsh", "list", "--name", "--state-running"], check=False)
    return str(listed.stdout).split()


def other(lab: Lab, host: Host) -> Host:
    return next(one for one in lab.hosts if one.name != host.name)


def vmnet(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return host.run([*VMNET, *words], check=False, timeout=90)


def migrate(lab: Lab, *options: str) -> subprocess.CompletedProcess[str]:
    source = where(lab)
    return vmnet(source, "migrate", "--json", *options, VM, other(lab, source).name)


def virsh_migrate(lab: Lab) -> subprocess.CompletedProcess[str]:
    source = where(lab)
    target = other(lab, source)
    command = ["virsh", "migrate", "--live", VM, target.libvirt_uri, f"tcp://{target.address}"]
    return source.run(command, check=False, timeout=90)


def start_anew(lab: Lab, old: str, new: str) -> None:
    """The VM is started again where it is, with ``new`` instead of ``old`` in its definition; returns when it answers."""
    host = where(lab)
    xml = host.run(["virsh", "dumpxml", "--migratable", VM]).stdout
    host.run(["virsh", "destroy", VM])
    host.run(["virsh", "create", "/dev/stdin"], text=xml.replace(old, new))
    wait_for("the VM to answer again", lambda: answers(lab), 60, 0.2)


def abort(host: Host) -> None:
    """Ask the daemon itself: a command's start would take as long as a small VM's pre-copy."""
    ControlClient(host.daemon_socket).request("abort", vm=VM)


def verdict(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["verdict"]
    return found


def last_verdict(source: Host) -> dict[str, Any]:
    """Of the last migration that left ``source``, as its daemon keeps it."""
    history = json.loads(vmnet(source, "status", "--json").stdout)["history"]
    left = [one for one in history if one["role"] == "source" and one["verdict"]]
    found: dict[str, Any] = max(left, key=lambda one: one["started"])["verdict"]
    return found


def crash_in(monkeypatch: pytest.MonkeyPatch, host: Host, role: Role, state: State) -> None:
    """The host's daemon is started anew, and kills itself when it gets there."""
    monkeypatch.setenv("VMNET_CRASH_AT", f"{role.value}:{state.value}")
    host.restart_daemon()
    monkeypatch.delenv("VMNET_CRASH_AT")


def start_again(host: Host) -> None:
    wait_for("the daemon to be killed", lambda: host.service("dom0d") is None, 20, 0.05)
    host.start_daemon()
    host.wait_daemon()


@contextmanager
def traffic(lab: Lab, address: str, rate: int = 1000) -> Iterator[dict[str, Any]]:
    """Both ways, for as long as the block lasts; the result is in the dictionary afterwards."""
    command = [*VMNET, "probe", address, "--rate", str(rate), "--duration", "60", "--json"]
    meter = lab.node("client").popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert meter.stdout is not None
    result: dict[str, Any] = {}
    try:
        first = meter.stdout.readline()
        assert '"started"' in first, first + (meter.stderr.read() if meter.stderr else "")
        yield result
    finally:
        meter.terminate()
        out, complaint = meter.communicate(timeout=30)
    assert meter.returncode == 0, complaint
    result.update(json.loads(out.splitlines()[-1]))


_PROGRAMS = """
from dom0.dataplane import classifier, netdev
for device in netdev.all_names():
    for direction in classifier.Direction:
        if classifier.is_attached(device, direction):
            print(f"a program on {device}'s {direction.name.lower()}")
"""


def programs(host: Host) -> list[str]:
    """Of ours, on any device of the host."""
    return str(host.run([sys.executable, "-c", _PROGRAMS]).stdout).splitlines()


def answers(lab: Lab) -> bool:
    """Whether the client's ping reaches the VM."""
    ping = ["busybox", "ping", "-c1", "-W1", address(lab)]
    return lab.node("client").run(ping, check=False).returncode == 0


def left_behind(lab: Lab) -> list[str]:
    """Devices, programs and open migrations of ours on any host."""
    found = []
    for host in lab.hosts:
        text = host.run(["ip", "-o", "link"], check=False).stdout
        found += [f"{host.name}: {line}" for line in text.splitlines() if " vmt" in line or " vmp" in line]
        found += [f"{host.name}: {one}" for one in programs(host)]
        status = json.loads(vmnet(host, "status", "--json").stdout)
        open_ones = [one for one in status["migrations"] + status["history"] if one["finished"] is None]
        found += [f"{host.name}: open in state {one['state']}" for one in open_ones]
    return found


def settled(lab: Lab, limit_s: float = 45) -> None:
    """Until nothing of ours is left behind. LabError says what was."""
    wait_for("nothing to be left behind", lambda: not left_behind(lab), limit_s, 0.2)


def address(lab: Lab, version: int = 4) -> str:
    return str(lab.vm(VM).interfaces[0].addresses[0 if version == 4 else 1]).partition("/")[0]


def log(host: Host, name: str = "dom0d") -> str:
    return Path(host.log_file(name)).read_text()
