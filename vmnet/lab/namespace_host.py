"""A host that is a namespace: libvirtd, hooks and our daemon run in it as processes of this computer."""

from __future__ import annotations

import importlib
import socket
import sys
from functools import lru_cache
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import accel, capabilities, controller, hostfiles, image, procs
from vmnet.lab.command import run
from vmnet.lab.domain import Boot
from vmnet.lab.host import Host, Limits, Running, guest_of, importable, newest_q35
from vmnet.lab.spawn import last_line
from vmnet.lab.topology import Topology, Vm
from vmnet.lab.wait import wait_for

LIBVIRT_SECONDS = 20.0
DAEMON_SECONDS = 15.0
_MODULES = {"vmnet": "vmnet.cli.entry", "vmnet-dom0d": "dom0.main"}


class NamespaceHost(Host):
    """Its daemons are started with ``start_*`` and waited for with ``wait_*``, so that hosts start side by side."""

    limits = Limits()

    @property
    def libvirt_uri(self) -> str:
        return f"qemu+tcp://{self.address}/system"

    def daemons(self) -> list[str]:
        return ["virtlogd", "libvirtd", *(["dom0d"] if self.runs_daemon else [])]

    def program(self, name: str) -> list[str]:
        if name == "python":
            return [sys.executable]
        sibling = Path(sys.executable).with_name(name)
        return [str(sibling)] if sibling.exists() else [sys.executable, "-m", _MODULES[name]]

    def boot(self, lab: str, vm: Vm, console: Path) -> Boot:
        picture = image.ensure(vm.image)
        small = picture if vm.image == "small" else image.ensure("small")
        full = image.with_files(picture, vm.files, self.paths.var / "guest" / f"{vm.name}.initrd")
        return Boot(lab, full, accel.choose(small), _newest_machine(), console)

    def clear_console(self, console: Path) -> None:
        console.parent.mkdir(parents=True, exist_ok=True)
        console.unlink(missing_ok=True)

    def console_text(self, console: Path) -> str:
        try:
            return console.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def running_vms(self) -> list[Running]:
        processes = ((p.pid, procs.command_line(p.pid)) for p in procs.in_namespaces([self.netns_inode]))
        return [Running(vm, self.name, pid) for pid, words in processes if (vm := guest_of(words))]

    def write_files(self, lab: str, topology: Topology) -> None:
        """Configuration and hooks; libvirtd looks for hooks only when it starts."""
        etc = self.var_dir / "etc-libvirt"
        (etc / "hooks").mkdir(exist_ok=True)
        (etc / "libvirtd.conf").write_text(hostfiles.libvirtd_conf(lab, self.spec))
        (etc / "qemu.conf").write_text(hostfiles.QEMU_CONF)
        (self.var_dir / "etc-vmnet" / "vmnet.toml").write_text(hostfiles.vmnet_toml(topology, self.spec))
        controller.write_fabric(self.var_dir / "etc-vmnet", topology)
        capabilities.seed(self.var_dir / "cache-libvirt")
        if self.spec.hooks and importable("hooks.install"):
            self._install_hooks(etc)

    def _install_hooks(self, etc: Path) -> None:
        try:
            importlib.import_module("hooks.install").install(etc, sys.executable)
        except ImportError as error:
            raise LabError(
                f"cannot install the hooks: {error}", "or bring the lab up with --no-hooks"
            ) from error

    def start_libvirt(self) -> None:
        self.spawn("virtlogd", ["virtlogd"])
        self.spawn("libvirtd", ["libvirtd", "--listen"], reaped=True)

    def wait_libvirt(self) -> None:
        """Raises LabError when libvirtd does not answer in time."""
        path = self.run_dir / "libvirt" / "libvirt-sock"
        wait_for(
            f"libvirtd on {self.name}", lambda: self._up("libvirtd") and _connects(path), LIBVIRT_SECONDS
        )

    def start_daemon(self) -> None:
        if self.runs_daemon:
            self.spawn("dom0d", [*self.program("vmnet-dom0d"), "--config", "/etc/vmnet/vmnet.toml"])

    def wait_daemon(self) -> None:
        """Raises LabError when the daemon does not answer a ping in time."""
        if not self.runs_daemon:
            return
        what = f"the daemon on {self.name} to answer"
        try:
            wait_for(what, lambda: self._up("dom0d") and self.ping(), DAEMON_SECONDS)
        except LabError as error:
            if error.hint:
                raise
            raise LabError(error.message, f"its log ends: {last_line(self.log_file('dom0d'))}") from None

    def kill_daemon(self) -> None:
        """kill -9, as a crash would."""
        if daemon := self.service("dom0d"):
            procs.end([daemon])

    def stop_daemon(self) -> None:
        if daemon := self.service("dom0d"):
            procs.stop(daemon)

    def _up(self, role: str) -> bool:
        if self.service(role) is None:
            raise LabError(f"{role} on {self.name} ended", f"its log ends: {last_line(self.log_file(role))}")
        return True


def _connects(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
    except OSError:
        return False
    return True


@lru_cache(maxsize=1)
def _newest_machine() -> str:
    """The newest versioned q35 machine type of this computer's QEMU."""
    return newest_q35(run(["qemu-system-x86_64", "-machine", "help"]).stdout)
