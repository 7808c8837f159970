"""A host: a node with libvirt, hooks and our daemon. What namespaces and machines have in common."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmnet.errors import LabError
from vmnet.lab.domain import Boot
from vmnet.lab.node import Node
from vmnet.lab.topology import Vm


@dataclass(frozen=True)
class Limits:
    """How long things may take on a kind of host, in seconds."""

    start_s: float = 60.0
    """``virsh start`` of a VM."""
    guest_s: float = 60.0
    """From there until the guest says that it is up."""
    migrate_s: float = 60.0
    answer_s: float = 3.0
    """The guest's responder answers the first request."""
    events_s: float = 10.0
    """The listener for QEMU's events is ready."""
    settle_s: float = 15.0
    """After a migration only one host runs the VM."""


@dataclass(frozen=True)
class Running:
    vm: str
    host: str
    pid: int
    """Of QEMU, as the host numbers it."""


class Host(Node, ABC):
    """Programs for the host are in its own places: :meth:`program`; how patient to be with it: ``limits``."""

    limits: Limits
    own_clock = False
    """Whether its clock is another than this computer's."""

    def platform(self) -> str:
        """Its kernel, libvirt and QEMU, if they are others than this computer's."""
        return ""

    @property
    def address(self) -> str:
        """IPv4 address of libvirt, the daemon and the tunnel."""
        return self.spec.underlay

    @property
    @abstractmethod
    def libvirt_uri(self) -> str:
        """Usable only inside the lab's hosts."""

    @property
    def migrate_uri(self) -> str:
        """Where QEMU sends a VM's memory to."""
        return f"tcp://{self.address}"

    @property
    def libvirt_socket_uri(self) -> str:
        """Usable from outside the namespaces."""
        return f"qemu+unix:///system?socket={self.run_dir}/libvirt/libvirt-sock"

    @property
    def daemon_socket(self) -> Path:
        """The daemon's control socket as seen from outside."""
        return self.run_dir / "vmnet" / "dom0d.sock"

    @property
    def runs_daemon(self) -> bool:
        """Whether the topology wants the daemon and this installation has one."""
        return self.spec.daemon and importable("dom0.main")

    @abstractmethod
    def program(self, name: str) -> list[str]:
        """How ``python``, ``vmnet`` or ``vmnet-dom0d`` are called on the host."""

    @abstractmethod
    def boot(self, lab: str, vm: Vm, console: Path) -> Boot:
        """What the VM is started with there. Raises LabError when the guest's image cannot be made."""

    @abstractmethod
    def clear_console(self, console: Path) -> None: ...

    @abstractmethod
    def console_text(self, console: Path) -> str:
        """What the guest wrote so far; empty when there is no such file."""

    @abstractmethod
    def running_vms(self) -> list[Running]:
        """VMs with a QEMU process, found without libvirt."""

    @abstractmethod
    def start_daemon(self) -> None:
        """Start our daemon, if the topology wants it."""

    @abstractmethod
    def wait_daemon(self) -> None:
        """Raises LabError when the daemon does not answer a ping in time."""

    @abstractmethod
    def kill_daemon(self) -> None:
        """kill -9, as a crash would."""

    @abstractmethod
    def stop_daemon(self) -> None: ...

    def restart_daemon(self) -> None:
        """Stop the daemon if it runs, start it, wait for its answer. Raises LabError when it does not come."""
        self.stop_daemon()
        self.start_daemon()
        self.wait_daemon()

    def ping(self) -> Any:
        """The daemon's answer to ``ping``, None when it does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(2)
                connection.connect(str(self.daemon_socket))
                connection.sendall(b'{"op": "ping"}\n')
                with connection.makefile() as lines:
                    return next(
                        (json.loads(line).get("result") for line in lines if '"result"' in line), None
                    )
        except (OSError, ValueError):
            return None


def guest_of(arguments: Sequence[str]) -> str:
    """The VM that a QEMU with this command line runs; empty when it is no QEMU of libvirt's."""
    guest = next((word for word in arguments if word.startswith("guest=")), "")
    return guest.removeprefix("guest=").partition(",")[0] if guest and "qemu-system" in arguments[0] else ""


def oldest_q35(machines: Iterable[str]) -> str:
    """Of ``pc-q35-VERSION`` names."""
    return min(machines, key=lambda name: [int(part) for part in name.rpartition("-")[2].split(".")])


def newest_q35(listing: str) -> str:
    """The newest versioned q35 machine type of ``-machine help``. Raises LabError when there is none."""
    versions = [
        tuple(map(int, v.split("."))) for v in re.findall(r"^pc-q35-([\d.]+)\s", listing, re.MULTILINE)
    ]
    if not versions:
        raise LabError("qemu-system-x86_64 knows no versioned q35 machine")
    return f"pc-q35-{'.'.join(map(str, max(versions)))}"


def importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
