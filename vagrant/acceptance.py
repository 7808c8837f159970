"""`make vagrant-test`: up, migrations under the meter, down; what was lost and how long each part took.

Where no libvirtd runs, everything runs beside one of its own (libvirtd_alone.sh). PYTHONPATH has tests/machines.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import evidence
import howto
import migrations
from machines import NAMES, Machines

from vmnet.errors import LabError, VmnetError
from vmnet.lab import accel, image
from vmnet.lab.machines import box
from vmnet.report import table

ROOT = Path(__file__).resolve().parents[1]
ALONE_STATE = Path("/var/lib/vmnet-vagrant")
_ALONE = "VMNET_VAGRANT_ALONE"
_COLUMNS = ("migration", "from", "sent", "lost", "reordered", "duplicated", "longest gap ms", "seconds")


def require() -> None:
    """Raises LabError when a program is missing."""
    missing = [name for name in ("vagrant", "virsh", "rsync", "ssh") if shutil.which(name) is None]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}", "run scripts/setup.sh vagrant")


def libvirt_answers() -> bool:
    try:
        return not subprocess.run(
            ["virsh", "-q", "-c", "qemu:///system", "list"], capture_output=True, timeout=30, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return False


class Times:
    """How long each part took."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        print(f"== {name}", flush=True)
        begin = time.monotonic()
        try:
            yield
        finally:
            self.rows.append((name, round(time.monotonic() - begin)))


def page_moves() -> list[tuple[str, str]]:
    """The commands of the how-to's first migrations: host and command."""
    page = (ROOT / "docs/install.md").read_text()
    return [
        (step.hosts[0], command)
        for step in howto.steps(page, migrations.HOSTS)
        if step.part == "vm"
        for command in step.commands
    ]


def run(machines: Machines, times: Times) -> list[migrations.Move]:
    for name in NAMES:  # one after the other: side by side, emulated machines only slow each other down
        with times.part(f"vagrant up {NAMES[name]}"):
            machines.up(name)
    machines.reachable()
    with times.part("start of the VM"):
        how = migrations.start_vm(machines)
    print(f"the VM is up: type='{how}'", flush=True)
    print(
        machines.shell(
            "a", "uname -r; pgrep -a vhost; pgrep -a qemu-system | cut -c 1-200", check=False
        ).stdout
    )
    moves = []
    for host, command in page_moves():
        with times.part(f"on {host}: {command}"):
            if "migrate" in command.split():
                moves.append(migrations.measured(machines, host, command))
            else:
                print(machines.run(host, *command.split()).stdout, flush=True)
    print(machines.run("a", "vmnet", "status", check=False).stdout, flush=True)
    return moves


def show(moves: list[migrations.Move], times: Times) -> None:
    rows = [
        (
            m.command, m.source, m.found["sent"], m.found["lost"], m.found["reordered"], m.found["duplicated"],
            m.found["longest_gap_ms"], round(m.total_s),
        )
        for m in moves
    ]  # fmt: skip
    table.show(_COLUMNS, rows)
    table.show(("part", "seconds"), times.rows)


def main() -> int:
    require()
    times = Times()
    with times.part("make box"):
        file = box.ensure(12, print)
    driver = {"kvm": "kvm", "tcg": "qemu"}[accel.choose(image.ensure("small"))]
    if not libvirt_answers():
        if os.environ.get(_ALONE):
            raise LabError("libvirt does not answer at qemu:///system")
        os.environ[_ALONE] = "1"
        print("no libvirtd runs here: starting one that lives as long as this test", flush=True)
        argv = ["libvirtd_alone.sh", str(ALONE_STATE), sys.executable, *sys.argv]
        os.execv(ROOT / "vagrant/libvirtd_alone.sh", argv)
    machines = Machines({"VMNET_VAGRANT_DRIVER": driver})
    if left := machines.left():
        if not os.environ.get(_ALONE):
            raise LabError(f"there are machines already: {', '.join(left)}", "end them: vagrant destroy")
        machines.vagrant("destroy", "--force")  # of a test that was killed, and its libvirtd with it
    with times.part("vagrant box add"):
        machines.vagrant("box", "add", "--force", "--name", "vmnet-debian12", str(file))
    moves: list[migrations.Move] = []
    try:
        moves = run(machines, times)
    except VmnetError:
        evidence.show(machines)
        raise
    finally:
        if not os.environ.get("VMNET_VAGRANT_KEEP"):
            with times.part("vagrant destroy"):
                machines.vagrant("destroy", "--force")
        show(moves, times)
    bad = [move.command for move in moves if not move.sound]
    if bad:
        print(f"lost or reordered packets: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad or not moves else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VmnetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
