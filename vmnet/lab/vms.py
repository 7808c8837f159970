"""Booting VMs and finding out where they run."""

from __future__ import annotations

from collections.abc import Iterable

from vmnet.errors import LabError
from vmnet.lab.domain import Boot, domain_xml
from vmnet.lab.host import Host, Running
from vmnet.lab.image import MARKER
from vmnet.lab.spawn import last_words
from vmnet.lab.topology import Vm
from vmnet.lab.wait import wait_for


def start(vm: Vm, host: Host, boot: Boot) -> None:
    """Define a VM on a host and start it; see wait_booted.

    Raises LabError when libvirt refuses.
    """
    host.clear_console(boot.console)
    kinds = {bridge.name: bridge.kind for bridge in host.spec.bridges}
    xml = domain_xml(vm, boot, kinds)
    host.run(["virsh", "--quiet", "define", "/dev/stdin"], text=xml, timeout=host.limits.start_s)
    host.run(["virsh", "--quiet", "start", vm.name], timeout=host.limits.start_s)


def wait_booted(vm: Vm, host: Host, boot: Boot) -> None:
    """Wait for the guest's readiness marker on its console. Raises LabError when it does not come."""
    try:
        wait_for(
            f"{vm.name} to boot on {host.name}",
            lambda: MARKER in host.console_text(boot.console),
            host.limits.guest_s,
        )
    except LabError as error:
        last = last_words(host.console_text(boot.console))
        raise LabError(error.message, f"its console ends: {last}") from None


def running(hosts: Iterable[Host]) -> list[Running]:
    """VMs with a QEMU process, found without libvirt."""
    return [found for host in hosts for found in host.running_vms()]
