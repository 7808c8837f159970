"""A node that is a machine: commands go in by ssh."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vmnet.errors import LabError
from vmnet.lab import command
from vmnet.lab.machines import clock, ssh
from vmnet.lab.machines.qmp import Qmp
from vmnet.lab.node import Node
from vmnet.lab.spawn import last_line, spawn
from vmnet.lab.wait import wait_for

T = TypeVar("T")
_SOCKETS = ("/run/vmnet/dom0d.sock", "/run/libvirt/libvirt-sock")
_SLOWNESS = 4.0
"""A command's time limit is meant for a node that is not emulated."""
_SSH_S = 60.0


class MachineNode(Node):
    """Its namespace holds QEMU, the connection that all commands share, and the wires. See bring_up.py for how it comes up."""

    @property
    def key(self) -> Path:
        """Root's, a copy of the image's: what comes into the cache later does not matter."""
        return self.var_dir / "key"

    @property
    def qmp(self) -> Path:
        return self.run_dir / "qmp"

    @property
    def console(self) -> Path:
        """What the machine itself wrote on its serial port."""
        return self.run_dir / "machine.console"

    @property
    def facts(self) -> dict[str, Any]:
        """What is inside: kernel, libvirt, QEMU (build.py)."""
        found: dict[str, Any] = json.loads((self.var_dir / "facts.json").read_text())
        return found

    def daemons(self) -> list[str]:
        return ["qemu", "ssh"]

    def freeze(self) -> None:
        with Qmp(self.qmp) as monitor:
            monitor.ask("stop")

    def thaw(self) -> None:
        with Qmp(self.qmp) as monitor:
            monitor.ask("cont")
        clock.set_clock(self)

    def argv(self, argv: Sequence[str], cwd: str | None = None) -> list[str]:
        return self.namespace_argv(ssh.command(self.key, argv, cwd), "/")

    def interactive_argv(self, argv: Sequence[str]) -> list[str]:
        return self.namespace_argv(ssh.terminal(self.key, argv), "/")

    def run(
        self, argv: Sequence[str], *, text: str | None = None, check: bool = True, timeout: float = 30.0
    ) -> command.Completed:
        """As in a namespace, with more patience."""
        done = self._ssh(argv, text.encode() if text is not None else b"", timeout * _SLOWNESS)
        found = command.Completed(
            done.args,
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
        if check and found.returncode:
            words = "; ".join((found.stderr.strip() or found.stdout.strip() or "no output").split("\n"))
            raise LabError(
                f"on {self.name}: '{_short(argv)}' failed with code {found.returncode}: {words[:300]}"
            )
        return found

    def feed(self, argv: Sequence[str], data: bytes, timeout: float = 60.0) -> None:
        """Run a program with ``data`` as its input. Raises LabError when it fails."""
        done = self._ssh(argv, data, timeout * _SLOWNESS)
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip() or "no output"
            raise LabError(
                f"on {self.name}: '{_short(argv)}' failed with code {done.returncode}: {words[:300]}"
            )

    def _ssh(self, argv: Sequence[str], data: bytes, timeout: float) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                self.argv(argv), input=data, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"on {self.name}: '{_short(argv)}' did not end within {timeout:g} s") from None

    def call(self, function: Callable[[], T]) -> T:
        raise LabError(
            f"{self.name} is a machine: a function of this program cannot run there", "run a command in it"
        )

    def connect(self, seconds: float = _SSH_S) -> None:
        """Make the connection that commands share, if it is not there. Raises LabError when the machine does not answer."""

        def connected() -> bool:
            if self.service("qemu") is None:
                reason = last_line(self.log_file("qemu"))
                raise LabError(f"machine {self.name} has ended", f"QEMU's log ends: {reason}")
            if self.service("ssh") is None:
                (self.run_dir / Path(ssh.CONTROL).name).unlink(missing_ok=True)  # of one that was killed
                master = self.namespace_argv(ssh.master(self.key, _SOCKETS), "/")
                spawn(master, self.pid_file("ssh"), self.log_file("ssh"))
            return command.run(self.namespace_argv(ssh.check(self.key), "/"), check=False).returncode == 0

        try:
            wait_for(f"machine {self.name} to answer by ssh", connected, seconds, 0.5)
        except LabError as error:
            hint = error.hint or f"its console ends: {last_line(self.console)}"
            raise LabError(error.message, hint) from None


def _short(argv: Sequence[str]) -> str:
    return " ".join(argv)[:160]
