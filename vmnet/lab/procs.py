"""Which processes belong to a lab: by recorded pid and start time, and by the namespaces they are in."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab.wait import wait_for

_LISTEN = "0A"


@dataclass(frozen=True)
class Proc:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start: int
    """Start time in clock ticks since boot (proc(5), field 22)."""

    @classmethod
    def parse(cls, stat: str) -> Proc:
        """From a line of /proc/PID/stat.

        Raises ValueError when it is none.
        """
        head, _, tail = stat.rpartition(")")
        fields = tail.split()
        if len(fields) < 20:
            raise ValueError("not a line of /proc/PID/stat")
        return cls(int(head.split(None, 1)[0]), int(fields[19]))

    @property
    def alive(self) -> bool:
        """Still the same process, and not a zombie."""
        return running(self.pid) == self


def running(pid: int) -> Proc | None:
    """The process with that pid, None when there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if stat.rpartition(")")[2].split()[0] in "ZX" else Proc.parse(stat)


def recorded(file: Path) -> Proc | None:
    """What a pid file says, None when it is missing or unreadable."""
    try:
        return Proc.parse(file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def namespace_of(pid: int, kind: str) -> int | None:
    """Inode number of the ``net`` or ``mnt`` namespace of a process."""
    try:
        return Path(f"/proc/{pid}/ns/{kind}").stat().st_ino
    except OSError:
        return None


def in_namespaces(net: Iterable[int | None], mnt: Iterable[int | None] = ()) -> list[Proc]:
    """Living processes, except this one, in any of these network or mount namespaces, and never in init's or ours."""
    nets = set(net) - {namespace_of(1, "net"), namespace_of(os.getpid(), "net"), None}
    mnts = set(mnt) - {namespace_of(1, "mnt"), namespace_of(os.getpid(), "mnt"), None}
    found = (
        running(pid)
        for pid in all_pids()
        if pid != os.getpid() and (namespace_of(pid, "net") in nets or namespace_of(pid, "mnt") in mnts)
    )
    return [proc for proc in found if proc]


def listening(pid: int) -> set[int]:
    """TCP ports at which somebody listens in the network namespace of a process (proc(5), /proc/net/tcp); empty when it is gone."""
    ports: set[int] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
            ports |= {int(f[1].rpartition(":")[2], 16) for line in lines if (f := line.split())[3] == _LISTEN}
    return ports


def command_line(pid: int) -> list[str]:
    """Arguments of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def send(proc: Proc, number: signal.Signals) -> None:
    """Signal exactly this process, never a later one with its pid."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(proc.pid)
        try:
            if proc.alive:
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def end(procs: Iterable[Proc], seconds: float = 5.0) -> None:
    """Kill these processes and wait until they are gone.

    Raises LabError when one does not go.
    """
    left = [proc for proc in procs if proc.alive]
    for proc in left:
        send(proc, signal.SIGKILL)
    names = ", ".join(str(proc.pid) for proc in left)
    wait_for(f"killed processes {names} to go", lambda: not any(p.alive for p in left), seconds)


def stop(proc: Proc, seconds: float = 5.0) -> None:
    """Ask a process to end, kill it if it does not."""
    send(proc, signal.SIGTERM)
    with contextlib.suppress(LabError):
        wait_for(f"process {proc.pid} to end", lambda: not proc.alive, seconds)
        return
    end([proc])
