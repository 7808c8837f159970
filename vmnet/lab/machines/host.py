"""A host that is a machine: commands go in by ssh, its daemons are systemd's."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vmnet.errors import LabError
from vmnet.lab import command, image
from vmnet.lab.domain import Boot
from vmnet.lab.host import Host, Limits, Running, guest_of
from vmnet.lab.machines import clock, howto, ssh
from vmnet.lab.machines.qmp import Qmp
from vmnet.lab.spawn import last_line, spawn
from vmnet.lab.topology import Vm
from vmnet.lab.wait import wait_for

T = TypeVar("T")
_SOCKETS = ("/run/vmnet/dom0d.sock", "/run/libvirt/libvirt-sock")
_SLOWNESS = 4.0
"""A command's time limit is meant for a host that is not emulated."""
_SSH_S = 60.0
_DAEMON_S = 240.0
_IMAGES = "/var/lib/libvirt/images"
_CONSOLES = "/var/log/libvirt/qemu"
_PROGRAMS = {"python": howto.PYTHON, "vmnet": "vmnet", "vmnet-dom0d": "vmnet-dom0d"}


class MachineHost(Host):
    """Its namespace holds QEMU, the connection that all commands share, and the wires. See bring_up.py for how it comes up."""

    limits = Limits(start_s=240, guest_s=240, migrate_s=300, answer_s=15, events_s=60, settle_s=60)
    own_clock = True

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

    @property
    def libvirt_uri(self) -> str:
        return howto.libvirt_uri(self.spec)

    def daemons(self) -> list[str]:
        return ["qemu", "ssh", *(["dom0d"] if self.runs_daemon else [])]

    def program(self, name: str) -> list[str]:
        return [_PROGRAMS[name]]

    def pids(self, roles: Sequence[str]) -> dict[str, int | None]:
        """Those of the namespace as this computer numbers them, the daemon's as the machine does."""
        found = super().pids(roles)
        if "dom0d" in found and found["ssh"] and found["qemu"]:
            show = ["systemctl", "show", "--property=MainPID", "--value", howto.DAEMON_UNIT]
            answer = str(self.run(show, check=False).stdout).strip()
            found["dom0d"] = int(answer) if answer.isdigit() and int(answer) else None
        return found

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

    def boot(self, lab: str, vm: Vm, console: Path) -> Boot:
        found = image.with_files(
            image.ensure(vm.image), vm.files, self.paths.var / "guest" / f"{vm.name}.initrd"
        )
        placed = image.Image(self._place(found.kernel), self._place(found.initrd))
        own_console = Path(_CONSOLES) / f"{vm.name}.console"
        return Boot(lab, placed, "kvm", str(self.facts["machine_type"]), own_console, kernel_datapath=True)

    def _place(self, file: Path) -> Path:
        """A copy of the file where libvirt's QEMU may read it; named by its content."""
        content = file.read_bytes()
        there = f"{_IMAGES}/{file.name}-{hashlib.sha256(content).hexdigest()[:16]}"
        if self.run(["test", "-e", there], check=False).returncode:
            self.feed(["sh", "-c", f"cat > {there}.new && mv {there}.new {there}"], content)
        return Path(there)

    def clear_console(self, console: Path) -> None:
        self.run(["rm", "-f", str(console)])

    def console_text(self, console: Path) -> str:
        return str(self.run(["cat", str(console)], check=False).stdout)

    def running_vms(self) -> list[Running]:
        if self.service("qemu") is None:
            return []
        done = self.run(["pgrep", "-a", "qemu-system"], check=False)
        if done.returncode not in (0, 1):
            raise LabError(f"on {self.name}: cannot list processes: {done.stderr.strip()}")
        lines = [line.split() for line in done.stdout.splitlines()]
        return [Running(vm, self.name, int(words[0])) for words in lines if (vm := guest_of(words[1:]))]

    def platform(self) -> str:
        facts = self.facts
        return ", ".join(f"{name} {facts[name]}" for name in ("kernel", "libvirt", "qemu", "openvswitch"))

    def freeze(self) -> None:
        with Qmp(self.qmp) as monitor:
            monitor.ask("stop")

    def thaw(self) -> None:
        with Qmp(self.qmp) as monitor:
            monitor.ask("cont")
        clock.set_clock(self)

    def start_daemon(self) -> None:
        if self.runs_daemon:
            self.run(["systemctl", "start", howto.DAEMON_UNIT])

    def wait_daemon(self) -> None:
        if not self.runs_daemon:
            return
        try:
            wait_for(f"the daemon on {self.name} to answer", self.ping, _DAEMON_S, 0.5)
        except LabError as error:
            log = self.run(["journalctl", "-q", "-n", "1", "-o", "cat", "-u", howto.DAEMON_UNIT], check=False)
            raise LabError(error.message, f"its log ends: {log.stdout.strip()}") from None

    def kill_daemon(self) -> None:
        """kill -9, as a crash would. systemd starts it again."""
        self.run(["systemctl", "kill", "--signal=KILL", howto.DAEMON_UNIT])

    def stop_daemon(self) -> None:
        self.run(["systemctl", "stop", howto.DAEMON_UNIT])


def _short(argv: Sequence[str]) -> str:
    return " ".join(argv)[:160]
