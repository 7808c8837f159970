"""The images of machines, cached by what they are made of."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmnet.lab.command import run
from vmnet.lab.machines import build, packages
from vmnet.lab.machines.packages import Release
from vmnet.lab.paths import REPOSITORY, cache_dir

Tell = Callable[[str], None]
_MADE_OF = ("bake.sh", "session.c")
_FORMAT = 1
"""To be raised when build.py or packages.py make something else of the same packages."""


@dataclass(frozen=True)
class MachineImage:
    """``disk`` is never written to: labs have overlays of it."""

    folder: Path
    release: Release

    @property
    def disk(self) -> Path:
        return self.folder / "base.qcow2"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return found


def root() -> Path:
    return cache_dir() / "machines"


def key() -> Path:
    """The private key that root of every machine accepts, made once a cache."""
    found = root() / "key"
    if not found.exists():
        new = found.with_name(f"key-{os.getpid()}")
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(new)])
        with contextlib.suppress(FileExistsError):  # another builder was faster
            os.link(new.with_suffix(".pub"), found.with_suffix(".pub"))
            os.link(new, found)
        for file in (new, new.with_suffix(".pub")):
            file.unlink()
    return found


def find(release: Release) -> MachineImage | None:
    """The image if it has been built."""
    public = root() / "key.pub"
    image = _place(release, public.read_text()) if public.exists() else None
    return image if image is not None and image.folder.exists() else None


def _place(release: Release, public_key: str) -> MachineImage:
    return MachineImage(root() / f"debian{release}-{content_hash(release, public_key)}", release)


def ensure(release: Release, tell: Tell = lambda line: None) -> MachineImage:
    """The cached image, built first if need be. Raises LabError when it cannot be built."""
    with locked(release):
        public = key().with_suffix(".pub")
        image = _place(release, public.read_text())
        if not image.folder.exists():
            tell(f"building the image of a Debian {release} machine (some minutes)")
            new = image.folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            build.build(release, public, new)
            new.rename(image.folder)
        return image


def content_hash(release: Release, public_key: str) -> str:
    """Changes with whatever makes another image; vmnet's own code does not: labs put it in when they come up."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {name: project.get(name) for name in ("dependencies", "scripts", "entry-points")}
    digest = hashlib.sha256(json.dumps([_FORMAT, release, packages.names(), public_key, wanted]).encode())
    for name in _MADE_OF:
        digest.update(f"\0{name}\0".encode() + (build.HERE / name).read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def locked(release: Release) -> Iterator[None]:
    """One builder of a release's images at a time."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / f"lock-{release}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in root().glob(f"debian{release}-*.new"):  # of a build that was killed; we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in (*root().glob(f"debian{release}-*/warm-*.new"), *root().glob(f"build{release}-*")):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def main(arguments: list[str]) -> None:
    """``python -m vmnet.lab.machines.image [12] [13]``: build what is missing, print where it is."""
    for release in packages.SUITES:
        if str(release) in arguments or not arguments:
            image = ensure(release, lambda line: print(line, file=sys.stderr))
            print(release, image.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
