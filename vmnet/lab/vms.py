"""Booting VMs and finding out where they run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from vmnet.errors import LabError
from vmnet.lab import procs
from vmnet.lab.command import run
from vmnet.lab.domain import Boot, domain_xml
from vmnet.lab.host import Host
from vmnet.lab.image import MARKER
from vmnet.lab.spawn import last_line
from vmnet.lab.topology import Vm
from vmnet.lab.wait import wait_for

GUEST_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    vm: str
    host: str
    pid: int


@lru_cache(maxsize=1)
def newest_machine() -> str:
    """The newest versioned q35 machine type of this QEMU; every host of a lab has the same one."""
    listing = run(["qemu-system-x86_64", "-machine", "help"]).stdout
    versions = [
        tuple(map(int, v.split("."))) for v in re.findall(r"^pc-q35-([\d.]+)\s", listing, re.MULTILINE)
    ]
    if not versions:
        raise LabError("qemu-system-x86_64 knows no versioned q35 machine")
    return f"pc-q35-{'.'.join(map(str, max(versions)))}"


def start(vm: Vm, host: Host, boot: Boot) -> None:
    """Define a VM on a host and start it; see wait_booted.

    Raises LabError when libvirt refuses.
    """
    boot.console.parent.mkdir(parents=True, exist_ok=True)
    boot.console.unlink(missing_ok=True)
    kinds = {bridge.name: bridge.kind for bridge in host.spec.bridges}
    xml = host.run_dir / f"{vm.name}.xml"
    xml.write_text(domain_xml(vm, boot, kinds))
    host.run(["virsh", "--quiet", "define", f"/run/{xml.name}"])
    host.run(["virsh", "--quiet", "start", vm.name], timeout=60)


def wait_booted(vm: Vm, host: Host, boot: Boot) -> None:
    """Wait for the guest's readiness marker on its console. Raises LabError when it does not come."""

    def booted() -> bool:
        try:
            return MARKER in boot.console.read_text(errors="replace")
        except FileNotFoundError:
            return False

    try:
        wait_for(f"{vm.name} to boot on {host.name}", booted, GUEST_SECONDS)
    except LabError as error:
        raise LabError(error.message, f"its console ends: {last_line(boot.console)}") from None


def running(hosts: Iterable[Host]) -> list[Running]:
    """VMs with a QEMU process, found without libvirt."""
    found = []
    for host in hosts:
        for proc in procs.in_namespaces([host.netns_inode]):
            arguments = procs.command_line(proc.pid)
            guest = next((a for a in arguments if a.startswith("guest=")), "")
            if guest and "qemu-system" in arguments[0]:
                found.append(Running(guest.removeprefix("guest=").partition(",")[0], host.name, proc.pid))
    return found
