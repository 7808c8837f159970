"""Taking a lab down: only what belongs to it, and all of it, whatever state it is in."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import mountpoints, paths, procs
from vmnet.lab.command import run
from vmnet.lab.paths import RUN_ROOT, VAR_ROOT, LabPaths
from vmnet.lab.state import lab_lock, locked
from vmnet.lab.wait import wait_for


def down(name: str) -> bool:
    """Take a lab down; False when there was nothing to take down.

    Raises LabError when something resists, or another command works on the lab.
    """
    lab = LabPaths(name)
    with locked(lab_lock(lab), f"lab '{name}'"):
        existed = lab.run.exists() or lab.var.exists() or bool(lab.existing_netns())
        remove_traces(lab)
    return existed


def remove_traces(lab: LabPaths) -> None:
    """The lab, its lock, and what all labs share if it was the last. The lock must be held and is gone afterwards."""
    remove(lab)
    lab_lock(lab).unlink(missing_ok=True)
    mountpoints.remove_if_last([other for other in paths.known_labs() if other != lab.name])
    for root in (RUN_ROOT, VAR_ROOT):
        with contextlib.suppress(OSError):  # another lab is in it
            root.rmdir()


def remove(lab: LabPaths) -> None:
    """Processes first (they pin namespaces), then namespaces, mounts, files. The lock must be held."""
    what = f"the processes of lab '{lab.name}' to end"
    wait_for(what, lambda: _end_all(lab), 10, 0)
    # from here on nothing half started can record itself and go on
    shutil.rmtree(lab.pids, ignore_errors=True)
    wait_for(what, lambda: _end_all(lab), 10, 0)
    for namespace in lab.existing_netns():
        _delete_netns(namespace)
    for mount in _mounts(lab):
        run(["umount", "--lazy", str(mount)])
    for folder in (lab.var, lab.run):  # the record in run goes last
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise LabError(f"cannot remove {folder}", "something was written into it; try again")


def _end_all(lab: LabPaths) -> bool:
    """One round; true when there was nobody left (a process may fork while the others are ended)."""
    found = set(processes(lab))
    procs.end(found)
    return not found


def processes(lab: LabPaths) -> Iterator[procs.Proc]:
    """Recorded processes that live, and all that share a namespace with them or are in the lab's namespaces."""
    recorded = [p for file in lab.pids.glob("*.*") if (p := procs.recorded(file)) and p.alive]
    net = {_inode(path) for path in lab.existing_netns()} | {
        procs.namespace_of(p.pid, "net") for p in recorded
    }
    mnt = {procs.namespace_of(p.pid, "mnt") for p in recorded}
    yield from (p for p in recorded if p.pid != os.getpid())
    yield from procs.in_namespaces(net, mnt)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _delete_netns(namespace: Path) -> None:
    done = run(["ip", "netns", "delete", namespace.name], check=False)
    if done.returncode:  # left by a reboot or a crash between making the file and mounting on it
        with contextlib.suppress(FileNotFoundError):
            namespace.unlink()


def _mounts(lab: LabPaths) -> list[Path]:
    """Mounts below the lab's folders in our own mount namespace, innermost first."""
    points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [p for p in reversed(points) if lab.run in p.parents or lab.var in p.parents]
