"""This copy of vmnet as an archive: of what the install how-to clones to /opt/vmnet, all that a host needs."""

from __future__ import annotations

import tarfile
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab.paths import REPOSITORY

PACKAGES = ("vmnet", "dom0", "hooks", "controller_bridge")
_REST = ("scripts", "pyproject.toml", "setup.py", "README.md", "LICENSE")
_PICTURES = {".png", ".svg", ".gif", ".pdf"}


def pack(archive: Path) -> None:
    """Raises LabError when this is not a copy of the repository."""
    if not (REPOSITORY / "pyproject.toml").exists():
        raise LabError(
            f"{REPOSITORY} is not a copy of vmnet's repository",
            "machines get vmnet from it: run the lab from a clone",
        )
    with tarfile.open(archive, "w") as out:
        for name in (*PACKAGES, *_REST):
            if (REPOSITORY / name).exists():
                out.add(REPOSITORY / name, name, filter=_wanted)


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = Path(entry.name)
    if path.name == "__pycache__" or path.name.endswith(".egg-info") or path.suffix in _PICTURES:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
