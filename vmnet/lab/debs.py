"""Debian packages, downloaded and unpacked without being installed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab.command import run

KERNEL = "linux-image-cloud-amd64"
_QUIET = [
    f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
]
_KERNEL_PART = re.compile(r"linux-(image|modules|binary)-\d")
_NO_LIBRARY = re.compile(r"lib(perl|python|c-bin)|-perl$|-dev$")


def unpack(packages: Iterable[str], store: Path, root: Path) -> None:
    """Download packages into ``store`` (those that are not there yet) and unpack them below ``root``.

    Raises LabError when a package cannot be had.
    """
    store.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    packages = list(packages)
    _download([package for package in packages if _stored(package, store) is None], store)
    for package in packages:
        file = _stored(package, store)
        if file is None:
            raise LabError(f"apt did not download the package {package}", "run 'apt-get update' first")
        run(["dpkg", "-x", str(file), str(root)], timeout=120)


def _stored(package: str, store: Path) -> Path | None:
    return max(store.glob(f"{package}_*.deb"), default=None)


def _download(packages: list[str], store: Path) -> None:
    if not packages:
        return
    options = ["-o", "APT::Sandbox::User=root"]  # apt's own user may not write to the store
    try:
        done = subprocess.run(
            ["apt-get", *options, "download", *packages], cwd=store, capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise LabError(f"cannot download packages: {error}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise LabError(f"cannot download packages: {reason}", "run 'apt-get update' first")


def kernel_packages() -> list[str]:
    """The packages behind the cloud kernel's meta package."""
    return _closure(KERNEL, lambda name: bool(_KERNEL_PART.match(name)))


def library_packages(package: str) -> list[str]:
    """A package and the library packages that it needs, directly or not."""
    found = _closure(package, lambda name: name.startswith("lib") and not _NO_LIBRARY.search(name))
    return [package, *found]


def _closure(package: str, wanted: Callable[[str], bool]) -> list[str]:
    listing = run(["apt-cache", "depends", "--recurse", *_QUIET, package], timeout=60).stdout
    names = {line for line in listing.splitlines() if re.match(r"[a-z0-9]", line)}
    found = sorted(name for name in names if wanted(name) and ":" not in name)
    if not found:
        raise LabError(f"apt knows nothing that {package} needs", "run 'apt-get update' first")
    return found
