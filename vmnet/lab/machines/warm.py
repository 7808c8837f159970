"""A machine that has booted once, kept as a disk and QEMU's state: labs go on from there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import down, net
from vmnet.lab.accel import Accel
from vmnet.lab.command import run
from vmnet.lab.machines import image, qemu
from vmnet.lab.machines.image import MachineImage, Tell
from vmnet.lab.machines.node import MachineNode
from vmnet.lab.machines.qmp import Qmp
from vmnet.lab.paths import LabPaths
from vmnet.lab.spawn import spawn
from vmnet.lab.state import lab_lock, locked
from vmnet.lab.topology import Machine, Node
from vmnet.lab.wait import wait_for

_BOOT_S = 900.0
_SAVE_S = 300.0
_UUID = "00000000-0000-4000-8000-000000000000"
# What a host has done once before its first VM comes. Exit 1 of the first: a unit has failed, which the next lines look at.
_FIRST_BOOT = """
systemctl is-system-running --wait > /dev/null || systemctl --failed --no-legend >&2
set -e
systemctl is-active --quiet ssh openvswitch-switch libvirtd.socket || { echo "ssh, Open vSwitch or libvirt is not up" >&2; exit 1; }
for device in kvm vhost-net net/tun; do [ -c /dev/$device ] || { echo "no /dev/$device" >&2; exit 1; }; done
virsh --quiet capabilities > /dev/null
virsh --quiet domcapabilities --virttype kvm --machine q35 > /dev/null
ovs-vsctl --timeout=60 show > /dev/null
vmnet --help > /dev/null
sync
"""


@dataclass(frozen=True)
class Warm:
    """``disk`` and ``state`` belong together; neither is written to again."""

    image: MachineImage
    accel: Accel
    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def state(self) -> Path:
        return self.folder / "state"


def ensure(machine: Machine, accel: Accel, tell: Tell = lambda line: None) -> Warm:
    """The kept machine, booted first if need be. Raises LabError when it does not boot."""
    found = image.ensure(machine.release, tell)
    with image.locked(machine.release):
        warm = Warm(found, accel, found.folder / f"warm-{_shape(machine, accel)}")
        if not warm.folder.exists():
            tell(f"first boot of a Debian {machine.release} machine (some minutes)")
            new = warm.folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            _boot(machine, Warm(found, accel, new))
            new.rename(warm.folder)
        return warm


def _shape(machine: Machine, accel: Accel) -> str:
    """A state fits only a QEMU of this version with the same devices."""
    version = run(["qemu-system-x86_64", "--version"]).stdout.splitlines()[0]
    devices = qemu.argv("", machine, qemu.Boot(Path(), Path(), Path(), accel, ""), 0)
    digest = hashlib.sha256(repr((version, devices, _FIRST_BOOT)).encode()).hexdigest()[:8]
    return f"{accel}-{machine.vcpus}x{machine.memory_mib}-{digest}"


def overlay(backing: Path, disk: Path) -> None:
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", "qcow2", str(disk)])


def start(node: MachineNode, machine: Machine, warm: Warm, uuid: str, ports: Sequence[str] | None) -> None:
    """QEMU in the node's namespace: from the warm state with these ports' taps, or a first boot when ``ports`` is None."""
    node.var_dir.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.key(), node.key)
    node.key.chmod(0o600)
    shutil.copyfile(image.key().with_suffix(".pub"), node.key.with_suffix(".pub"))
    shutil.copyfile(warm.image.folder / "facts.json", node.var_dir / "facts.json")
    first = ports is None
    disk = warm.disk if first else node.var_dir / "disk.qcow2"
    overlay(warm.image.disk if first else warm.disk, disk)
    boot = qemu.Boot(
        warm.image.kernel, warm.image.initrd, disk, warm.accel, uuid, None if first else warm.state
    )
    argv = qemu.argv(node.name, machine, boot, len(ports or ()))
    spawn(node.namespace_argv(argv, "/"), node.pid_file("qemu"), node.log_file("qemu"))


def _boot(machine: Machine, warm: Warm) -> None:
    paths = LabPaths(f"first-boot-{machine.release}")
    with locked(lab_lock(paths), f"lab '{paths.name}'") as lock:
        down.remove(paths)  # of a first boot that was killed
        host = MachineNode(paths, Node("machine", "host", machine=machine))
        try:
            net.make_namespaces([host], lock)
            net.batch(host, ["link set dev lo up"])
            start(host, machine, warm, _UUID, None)
            host.connect(_BOOT_S)
            host.run(["sh", "-c", _FIRST_BOOT], timeout=_BOOT_S)
            with Qmp(host.qmp) as monitor:
                monitor.save(warm.state, _SAVE_S)
                monitor.ask("quit")
            wait_for("QEMU to end", lambda: host.service("qemu") is None, 30)
        except OSError as error:
            raise LabError(f"the machine's first boot failed: {error}") from error
        finally:
            down.remove_traces(paths)
