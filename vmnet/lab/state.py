"""What is known about a lab on disk. Written before anything is made, so that a half-made lab can be taken down."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from vmnet.errors import LabError, NotFoundError
from vmnet.lab.paths import RUN_ROOT, LabPaths
from vmnet.lab.wait import wait_for


@dataclass(frozen=True)
class State:
    name: str
    source: str
    """Topology name or file, as given."""
    document: Any
    """The topology as read, with the command line's changes."""
    boot_id: str
    namespaces: tuple[str, ...]
    complete: bool = False
    places: Mapping[str, str] = field(default_factory=dict)
    """Where clients have moved to since: the client's end of its link -> the switch's, each ``node:port``."""
    moving: Mapping[str, Any] = field(default_factory=dict)
    """Moves that have begun and not ended: the client's end -> what move.py needs to finish."""


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def save(paths: LabPaths, state: State) -> None:
    paths.run.mkdir(parents=True, exist_ok=True)
    new = paths.state.with_suffix(".new")
    new.write_text(json.dumps(asdict(state), indent=1) + "\n")
    new.replace(paths.state)


def load(paths: LabPaths) -> State:
    """Raises NotFoundError when there is no such lab, LabError when its record is damaged."""
    try:
        raw = json.loads(paths.state.read_text())
        return State(**{**raw, "namespaces": tuple(raw["namespaces"])})
    except FileNotFoundError:
        raise NotFoundError(f"no lab '{paths.name}' is up", f"try 'vmnet lab up {paths.name}'") from None
    except (ValueError, TypeError, KeyError) as error:
        raise LabError(f"{paths.state} is damaged: {error}", f"try 'vmnet lab down {paths.name}'") from None


@contextmanager
def locked(file: Path, what: str, seconds: float = 2.0) -> Iterator[int]:
    """Hold a lock file that its holder may delete. Yields its descriptor: a child that inherits it holds the lock too.

    Raises LabError when somebody else holds it for longer than ``seconds`` (the child of a killed command may, for a moment).
    """
    try:
        held = wait_for(f"the lock of {what}", lambda: _lock(file), seconds)
    except LabError:
        raise LabError(f"{what} is busy: another command is working on it") from None
    with held:
        yield held.fileno()


def _lock(file: Path) -> IO[str] | None:
    """The locked file, None when it is somebody else's or was deleted meanwhile."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("w")
    except FileNotFoundError:  # the last lab went, and the folder with it
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle.fileno()).st_ino == file.stat().st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    handle.close()
    return None


def lab_lock(paths: LabPaths) -> Path:
    return RUN_ROOT / f".{paths.name}.lock"
