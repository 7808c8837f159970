"""Debian packages, downloaded and unpacked without being installed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab.command import run

KERNEL = "linux-image-cloud-amd64"
_QUIET = ("--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances")
_KERNEL_PART = re.compile(r"linux-(image|modules|binary)-\d")
_NO_LIBRARY = re.compile(r"lib(perl|python|c-bin)|-perl$|-dev$")


def unpack(packages: Iterable[str], store: Path, root: Path) -> None:
    """Download packages into ``store`` and unpack them below ``root``.

    Raises LabError when a package cannot be had.
    """
    store.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        run(["dpkg", "-x", str(_download(package, store)), str(root)], timeout=120)


def _download(package: str, store: Path) -> Path:
    have = sorted(store.glob(f"{package}_*.deb"))
    if have:
        return have[-1]
    options = ["-o", "APT::Sandbox::User=root"]  # apt's own user may not write to the store
    try:
        done = subprocess.run(
            ["apt-get", *options, "download", package], cwd=store, capture_output=True, text=True, timeout=300,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise LabError(f"cannot download the package {package}: {error}") from None
    have = sorted(store.glob(f"{package}_*.deb"))
    if done.returncode or not have:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise LabError(f"cannot download the package {package}: {reason}", "run 'apt-get update' first")
    return have[-1]


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
