"""Files put into an ext4 filesystem inside a disk's file, by debugfs: nothing is mounted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab.command import run

_TYPE = {"dir": 0o040000, "file": 0o100000}


@dataclass(frozen=True)
class Entry:
    """``content`` None: a folder. ``link``: a symbolic link to there instead."""

    path: str
    content: str | None = None
    mode: int = 0o644
    owner: int = 0
    group: int = 0
    link: str = ""


@dataclass(frozen=True)
class Filesystem:
    """The filesystem that begins ``offset_bytes`` into ``disk``."""

    disk: Path
    offset_bytes: int

    @property
    def _device(self) -> str:
        return f"{self.disk}?offset={self.offset_bytes}"

    def read(self, path: str) -> str:
        """Raises LabError when there is no such file."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            run(["debugfs", "-R", f"dump {path} {copy}", self._device])
            if not copy.exists() or not copy.stat().st_size:
                raise LabError(f"no {path} in the filesystem of {self.disk.name}, or an empty one")
            return copy.read_text()

    def put(self, entries: Sequence[Entry]) -> None:
        """In order; a file that exists is replaced. Raises LabError when the filesystem is not sound afterwards."""
        with tempfile.TemporaryDirectory() as folder:
            for number, entry in enumerate(entries):
                if entry.content is not None:
                    (Path(folder) / str(number)).write_text(entry.content)
            script = Path(folder) / "script"
            script.write_text("\n".join(commands(entries, folder)) + "\n")
            run(["debugfs", "-w", "-f", str(script), self._device])
        run(["e2fsck", "-f", "-n", self._device], timeout=600)
        for entry in entries:
            if entry.content is not None and self.read(entry.path) != entry.content:
                raise LabError(f"debugfs did not write {entry.path} into {self.disk.name}")


def commands(entries: Sequence[Entry], folder: str) -> list[str]:
    """debugfs's commands; the content of entry N is in the file N of ``folder``. Pure."""
    lines = []
    for number, entry in enumerate(entries):
        if entry.link:
            lines += [f"symlink {entry.path} {entry.link}"]
            continue
        kind = "dir" if entry.content is None else "file"
        if kind == "dir":
            lines += [f"mkdir {entry.path}"]
        else:
            lines += [f"rm {entry.path}", f"write {folder}/{number} {entry.path}"]
        lines += [
            f"set_inode_field {entry.path} mode 0{_TYPE[kind] | entry.mode:o}",
            f"set_inode_field {entry.path} uid {entry.owner}",
            f"set_inode_field {entry.path} gid {entry.group}",
        ]
    return lines
