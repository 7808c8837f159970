"""The command line of a machine's QEMU. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmnet.lab.accel import Accel
from vmnet.lab.machines import wire
from vmnet.lab.topology import MACHINE_PORTS, Machine

MANAGEMENT_MAC = "52:54:00:6d:67:01"
SSH_PORT = 22
"""In the node's namespace, at 127.0.0.1."""
_NETWORK = "192.0.2.0/24"
"""For documentation (RFC 5737): a topology's addresses are not there. The image has 192.0.2.15."""
KERNEL_ARGUMENTS = (
    "root=LABEL=machine ro console=ttyS0,115200 net.ifnames=0 quiet systemd.default_timeout_start_sec=900"
)
"""As in bake.sh; units get more time to start, since emulated processors are slow."""
_EMULATED_PROCESSORS = 2
"""At least as many must be possible in a machine, though one may be all it has.

QEMU before 8.1 emulates one processor alone without memory barriers. The guest and QEMU's other threads then lose a notification of a
virtio queue now and then, and that interface sends nothing more (accel/tcg/tcg-accel-ops.c, CF_PARALLEL).
"""
_CPU: dict[Accel, str] = {"kvm": "host", "tcg": "max"}
_ACCEL: dict[Accel, str] = {"kvm": "kvm", "tcg": "tcg,thread=multi,tb-size=512"}


@dataclass(frozen=True)
class Boot:
    """What a machine is started with. ``state``: a file of another QEMU's state to go on from; None: it boots."""

    kernel: Path
    initrd: Path
    disk: Path
    accel: Accel
    uuid: str
    state: Path | None = None


def argv(name: str, machine: Machine, boot: Boot, taps: int) -> list[str]:
    """``taps``: how many of the namespace's taps to open. The devices are the same for all: a state fits them."""
    words = [
        "qemu-system-x86_64", "-name", name, "-uuid", boot.uuid, "-nodefaults", "-display", "none",
        "-machine", "q35", "-accel", _ACCEL[boot.accel], "-cpu", _CPU[boot.accel],
        "-smp", _processors(machine), "-m", str(machine.memory_mib),
        "-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", KERNEL_ARGUMENTS,
        "-drive", f"file={boot.disk},if=virtio,cache=unsafe,discard=unmap",
        "-netdev", f"user,id=mgmt,net={_NETWORK},ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:{SSH_PORT}-:22",
        "-device", f"virtio-net-pci,netdev=mgmt,mac={MANAGEMENT_MAC}",
        # the guest's random numbers start anew when a state is loaded
        "-device", "virtio-rng-pci", "-device", "vmgenid,guid=auto",
        "-chardev", "file,id=console,path=/run/machine.console,append=on", "-serial", "chardev:console",
        "-qmp", "unix:/run/qmp,server=on,wait=off",
    ]  # fmt: skip
    for slot in range(MACHINE_PORTS):
        words += ["-device", f"pcie-root-port,id=slot{slot},chassis={slot + 1}"]
    for number in range(taps):
        words += [
            "-netdev",
            f"tap,id=net{number},ifname={wire.tap(number)},script=no,downscript=no,vhost=off",
        ]
    if boot.state is not None:
        words += ["-incoming", f"exec:cat '{boot.state}'"]
    return words


def _processors(machine: Machine) -> str:
    return f"cpus={machine.vcpus},maxcpus={max(machine.vcpus, _EMULATED_PROCESSORS)}"


def interface(number: int, mac: str, mtu: int) -> dict[str, Any]:
    """Arguments of QMP's device_add for the ``number``-th link end."""
    return {
        "driver": "virtio-net-pci",
        "id": f"nic{number}",
        "netdev": f"net{number}",
        "bus": f"slot{number}",
        "mac": mac,
        "host_mtu": mtu,
        "rx_queue_size": 1024,
    }
