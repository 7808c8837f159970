"""A host that is a machine: its daemons are systemd's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import image
from vmnet.lab.domain import Boot
from vmnet.lab.host import Host, Limits, Running, guest_of
from vmnet.lab.machines import howto
from vmnet.lab.machines.node import MachineNode
from vmnet.lab.topology import Vm
from vmnet.lab.wait import wait_for

_DAEMON_S = 240.0
_IMAGES = "/var/lib/libvirt/images"
_CONSOLES = "/var/log/libvirt/qemu"


_PROGRAMS = {"python": howto.PYTHON, "vmnet": "vmnet", "vmnet-dom0d": "vmnet-dom0d"}


class MachineHost(MachineNode, Host):
    """With libvirt, hooks and our daemon inside."""

    limits = Limits(start_s=240, guest_s=240, migrate_s=300, answer_s=15, events_s=60, settle_s=60)
    own_clock = True

    @property
    def libvirt_uri(self) -> str:
        return howto.libvirt_uri(self.spec)

    def daemons(self) -> list[str]:
        return [*super().daemons(), *(["dom0d"] if self.runs_daemon else [])]

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
