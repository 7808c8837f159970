"""A host: a node with libvirtd, hooks and our daemon."""

from __future__ import annotations

import importlib
import importlib.util
import json
import socket
import sys
from pathlib import Path
from typing import Any

from vmnet.errors import LabError
from vmnet.lab import capabilities, controller, hostfiles, procs
from vmnet.lab.node import Node
from vmnet.lab.spawn import last_line
from vmnet.lab.topology import Topology
from vmnet.lab.wait import wait_for

LIBVIRT_SECONDS = 20.0
DAEMON_SECONDS = 15.0


class Host(Node):
    """Its daemons are started with ``start_*`` and waited for with ``wait_*``, so that hosts start side by side."""

    @property
    def address(self) -> str:
        """IPv4 address of libvirt, the daemon and the tunnel."""
        return self.spec.underlay

    @property
    def libvirt_uri(self) -> str:
        """Usable only inside the lab's hosts."""
        return f"qemu+tcp://{self.address}/system"

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
        return self.spec.daemon and _importable("dom0.main")

    def write_files(self, lab: str, topology: Topology) -> None:
        """Configuration and hooks; libvirtd looks for hooks only when it starts."""
        etc = self.var_dir / "etc-libvirt"
        (etc / "hooks").mkdir(exist_ok=True)
        (etc / "libvirtd.conf").write_text(hostfiles.libvirtd_conf(lab, self.spec))
        (etc / "qemu.conf").write_text(hostfiles.QEMU_CONF)
        (self.var_dir / "etc-vmnet" / "vmnet.toml").write_text(hostfiles.vmnet_toml(topology, self.spec))
        controller.write_fabric(self.var_dir / "etc-vmnet", topology)
        capabilities.seed(self.var_dir / "cache-libvirt")
        if self.spec.hooks and _importable("hooks.install"):
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
        """Start our daemon, if the topology wants it."""
        if self.runs_daemon:
            sibling = Path(sys.executable).with_name("vmnet-dom0d")
            program = [str(sibling)] if sibling.exists() else [sys.executable, "-m", "dom0.main"]
            self.spawn("dom0d", [*program, "--config", "/etc/vmnet/vmnet.toml"])

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

    def kill_daemon(self) -> None:
        """kill -9, as a crash would."""
        if daemon := self.service("dom0d"):
            procs.end([daemon])

    def stop_daemon(self) -> None:
        if daemon := self.service("dom0d"):
            procs.stop(daemon)

    def restart_daemon(self) -> None:
        """Stop the daemon if it runs, start it, wait for its answer. Raises LabError when it does not come."""
        self.stop_daemon()
        self.start_daemon()
        self.wait_daemon()

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


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
