"""The VM under test, and its migrations under the meter."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machines import Machines

from vmnet.bench.child import PIPES, Child
from vmnet.errors import LabError
from vmnet.lab import domain, image
from vmnet.lab.topology import Vm, VmInterface
from vmnet.lab.wait import wait_for

HOSTS = ("a", "b")
VM_NAME = "vm1"
ADDRESS = "10.0.0.10"
RATE_PPS = 100
_PYTHON = "/opt/vmnet/.venv/bin/python"
_IMAGES = "/var/lib/libvirt/images"
_CONSOLE = f"/var/log/libvirt/qemu/{VM_NAME}.console"
_GUEST_S = 300.0
_MIGRATE_S = 600.0
_START_S = 120.0
_END_S = 120.0
_LEAD_S = 3.0
_TAIL_S = 3.0
_VM = Vm(
    VM_NAME, "a", 128, "small", None, (VmInterface("br0", "52:54:00:00:00:01", (f"{ADDRESS}/24",), 1500),), ()
)


@dataclass(frozen=True)
class Move:
    """One migration. ``found``: the meter's result, both directions together."""

    command: str
    source: str
    total_s: float
    found: dict[str, Any]

    @property
    def sound(self) -> bool:
        return not (self.found["lost"] or self.found["reordered"])


def start_vm(machines: Machines) -> str:
    """The VM, on host a. Returns how it runs: kvm or qemu. Raises LabError when it does not come up."""
    guest = image.ensure("small")
    for host in HOSTS:
        for file in (guest.kernel, guest.initrd):
            machines.feed(host, f"{_IMAGES}/{file.name}", file.read_bytes())
    there = image.Image(Path(_IMAGES) / guest.kernel.name, Path(_IMAGES) / guest.initrd.name)
    has_kvm = machines.run("a", "test", "-c", "/dev/kvm", check=False).returncode == 0
    types = machines.shell("a", "qemu-system-x86_64 -machine help").stdout.split()
    machine = max((word for word in types if word.startswith("pc-q35-")), key=_version)
    boot = domain.Boot(
        "vagrant", there, "kvm" if has_kvm else "tcg", machine, Path(_CONSOLE), kernel_datapath=True
    )
    machines.feed("a", f"/root/{VM_NAME}.xml", domain.domain_xml(_VM, boot, {"br0": "linux"}).encode())
    machines.run("a", "virsh", "create", f"/root/{VM_NAME}.xml")
    wait_for(
        f"{VM_NAME} to be up on a",
        lambda: image.MARKER in machines.run("a", "cat", _CONSOLE, check=False).stdout,
        _GUEST_S,
        2.0,
    )
    return "kvm" if has_kvm else "qemu"


def _version(machine: str) -> tuple[int, ...]:
    return tuple(int(part) for part in machine.removeprefix("pc-q35-").split(".") if part.isdigit())


def measured(machines: Machines, source: str, command: str) -> Move:
    """Run the command on the VM's host while the meter in the client sends to the VM and the VM to it.

    Raises LabError when the command fails, or the VM is not at the other host afterwards.
    """
    meter_argv = [_PYTHON, "-m", "vmnet.probe", ADDRESS, "--json", "--duration", "0", "--rate", str(RATE_PPS)]
    # its number first: ending an ssh does not end what it started
    line = ["sh", "-c", 'echo "{\\"pid\\": $$}"; exec "$@"', "meter", *meter_argv]
    with Child("the meter", machines.popen("client", line, **PIPES)) as meter:
        pid = meter.expect("number of the process", lambda found: "pid" in found, _START_S)["pid"]
        try:
            meter.expect("start of the stream", lambda found: found.get("event") == "started", _START_S)
            time.sleep(_LEAD_S)
            begin = time.monotonic()
            done = machines.run(source, *command.split(), check=False, timeout=_MIGRATE_S)
            total_s = time.monotonic() - begin
            print(done.stdout + done.stderr, flush=True)
            time.sleep(_TAIL_S)
        finally:
            machines.run("client", "kill", "-TERM", str(pid), check=False)
        found = meter.expect("result", lambda found: found.get("event") == "result", _END_S)
        meter.finish(_END_S)
    if done.returncode:
        raise LabError(f"'{command}' on {source} ended with code {done.returncode}")
    other = next(host for host in HOSTS if host != source)
    state = machines.run(other, "virsh", "domstate", VM_NAME).stdout.strip()
    if state != "running":
        raise LabError(f"{VM_NAME} is {state} on {other} after '{command}'")
    return Move(command, source, total_s, found)
