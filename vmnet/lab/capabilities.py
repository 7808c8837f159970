"""libvirt's cache of what QEMU can do, kept between labs: probing takes seconds a host. libvirt itself checks that it still holds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vmnet.lab.paths import cache_dir

_INSIDE = Path("qemu") / "capabilities"


def seed(cache_libvirt: Path) -> None:
    """Give a new host (its /var/cache/libvirt) what an earlier one found out."""
    target = cache_libvirt / _INSIDE
    target.mkdir(parents=True, exist_ok=True)
    for file in _kept().glob("*.xml"):
        shutil.copy(file, target)


def keep(cache_libvirt: Path) -> None:
    """Keep what a host found out."""
    _kept().mkdir(parents=True, exist_ok=True)
    for file in (cache_libvirt / _INSIDE).glob("*.xml"):
        old = _kept() / file.name
        if not old.exists() or old.read_bytes() != file.read_bytes():
            new = old.with_suffix(f".{os.getpid()}")
            shutil.copy(file, new)
            new.replace(old)


def _kept() -> Path:
    return cache_dir() / "libvirt-capabilities"
