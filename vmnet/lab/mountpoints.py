"""Folders of this machine that hosts mount their own over. Those that were missing are made, and go with the last lab."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vmnet.lab.node import PRIVATE
from vmnet.lab.paths import RUN_ROOT

_RECORD = RUN_ROOT / ".mountpoints"


@contextmanager
def _locked() -> Iterator[None]:
    """Among all labs; never held for long."""
    RUN_ROOT.mkdir(parents=True, exist_ok=True)
    fd = os.open(RUN_ROOT, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def make() -> None:
    """Make those that are missing, recording each one first."""
    with _locked():
        for mount_point in map(Path, PRIVATE.values()):
            if not mount_point.exists():
                with _RECORD.open("a") as record:
                    record.write(f"{mount_point}\n")
                mount_point.mkdir(parents=True)


def remove_if_last(others: list[str]) -> None:
    """Remove what ``make`` made, if no other lab is left. What is not empty by now stays."""
    with _locked():
        if others or not _RECORD.exists():
            return
        for line in _RECORD.read_text().splitlines():
            with contextlib.suppress(OSError):
                Path(line).rmdir()
        _RECORD.unlink()
