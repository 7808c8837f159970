"""The guest: a Debian kernel and an initramfs with busybox, the responder and the game, or with FRR as well."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vmnet.errors import LabError
from vmnet.lab import debs, frr, kmod
from vmnet.lab.command import run
from vmnet.lab.cpio import Archive
from vmnet.lab.paths import REPOSITORY, cache_dir

Variant = Literal["small", "router"]
MARKER = "VMNET-GUEST-UP"
"""What the guest prints on its console once its network and its responder are up."""

_SOURCES = Path(os.environ.get("VMNET_GUEST", REPOSITORY / "guest"))
_BUILDERS = {"small": ("kmod.py", "cpio.py"), "router": ("kmod.py", "cpio.py", "frr.py")}
_FORMAT = "1"
"""To be raised when this file builds something else."""
_MODULES = {"small": kmod.WANTED, "router": (*kmod.WANTED, "8021q")}
_SMALL = ("game", "responder")
_DIRECTORIES = ("proc", "sys", "dev", "run", "tmp", "etc", "var/run", "var/tmp", "lib/modules", "root")


@dataclass(frozen=True)
class Image:
    kernel: Path
    initrd: Path


def ensure(
    variant: Variant, tell: Callable[[str], None] = lambda line: None, *, refresh: bool = False
) -> Image:
    """The cached image, built first if need be. ``refresh`` also gets the packages anew.

    Raises LabError when something that the build needs is missing.
    """
    with _locked(cache_dir()) as cache:
        image = _place(cache, variant)
        if refresh:
            shutil.rmtree(cache / "debs", ignore_errors=True)
            shutil.rmtree(image.kernel.parent, ignore_errors=True)
        if not (image.kernel.exists() and image.initrd.exists()):
            tell(f"building the {variant} guest image")
            _build(cache, variant, image)
        return image


def with_files(image: Image, files: Mapping[str, str], initrd: Path) -> Image:
    """The image with more files, written to ``initrd``: Linux unpacks archives that follow each other into one tree."""
    if not files:
        return image
    archive = Archive()
    for path, text in files.items():
        archive.file(path, text.encode())
    initrd.parent.mkdir(parents=True, exist_ok=True)
    initrd.write_bytes(image.initrd.read_bytes() + archive.packed())
    return Image(image.kernel, initrd)


def _place(cache: Path, variant: Variant) -> Image:
    folder = cache / "guest" / f"{variant}-{_content_hash(variant)}"
    return Image(folder / "vmlinuz", folder / "initrd")


def _content_hash(variant: Variant) -> str:
    digest = hashlib.sha256(f"{variant} {_FORMAT} {_release()}".encode())
    here = Path(__file__).parent
    for file in (*_scripts(variant), *_programs(variant), *(here / name for name in _BUILDERS[variant])):
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _scripts(variant: Variant) -> list[Path]:
    """The first one is the guest's first process."""
    return [_SOURCES / name for name in (("init",) if variant == "small" else ("init", "answer"))]


def _programs(variant: Variant) -> list[Path]:
    """C programs of one file each: all of them in the router, some in the small image."""
    found = sorted(_SOURCES.glob("*.c"))
    return [file for file in found if variant == "router" or file.stem in _SMALL]


def _release() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(
        (line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_ID=")), "unknown"
    )


@contextmanager
def _locked(cache: Path) -> Iterator[Path]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def _build(cache: Path, variant: Variant, image: Image) -> None:
    store = cache / "debs" / _release()
    target = image.kernel.parent
    for leftover in cache.glob("build-*"):  # of a build that was killed; we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as scratch:
        root, out = Path(scratch) / "root", Path(scratch) / "out"
        out.mkdir()
        debs.unpack([*debs.kernel_packages(), "busybox-static"], store, root)
        kernels = sorted((root / "boot").glob("vmlinuz-*"))
        if not kernels:
            raise LabError("the kernel package holds no vmlinuz")
        shutil.copyfile(kernels[-1], out / "vmlinuz")
        archive = _base(variant, root, Path(scratch))
        if variant == "router":
            frr.add(archive, store, Path(scratch) / "frr")
        (out / "initrd").write_bytes(archive.packed())
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        out.rename(target)


def _base(variant: Variant, root: Path, scratch: Path) -> Archive:
    archive = Archive()
    for name in _DIRECTORIES:
        archive.directory(name)
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3)
    first, *others = _scripts(variant)
    archive.file(first.name, first.read_bytes(), 0o755)
    for script in others:
        archive.file(f"bin/{script.name}", script.read_bytes(), 0o755)
    _busybox(archive, root)
    modules = kmod.in_load_order(root, _MODULES[variant])
    for name, content in modules:
        archive.file(f"lib/modules/{name}.ko", content)
    archive.file("lib/modules/order", "".join(f"{name}\n" for name, _ in modules).encode())
    for program in _programs(variant):
        archive.file(f"bin/{program.stem}", _compiled(program, scratch), 0o755)
    return archive


def _busybox(archive: Archive, root: Path) -> None:
    program = next((p for p in (root / "bin/busybox", root / "usr/bin/busybox") if p.exists()), None)
    if program is None:
        raise LabError("the package busybox-static holds no busybox")
    archive.file("bin/busybox", program.read_bytes(), 0o755)
    for applet in run([str(program), "--list"]).stdout.split():
        if applet != "busybox":
            archive.link(f"bin/{applet}", "busybox")


def _compiled(source: Path, scratch: Path) -> bytes:
    program = scratch / source.stem
    flags = ["-O2", "-static", "-pthread", "-s"]
    run(["gcc", *flags, "-o", str(program), str(source)], timeout=120)
    return program.read_bytes()


def main(arguments: list[str]) -> None:
    """``build.py [small|router]… [--refresh]``: print where kernel and initramfs are."""
    variants: list[Variant] = [v for v in ("small", "router") if v in arguments] or ["small", "router"]
    for number, variant in enumerate(variants):
        refresh = "--refresh" in arguments and number == 0
        image = ensure(variant, lambda line: print(line, file=sys.stderr), refresh=refresh)
        print(variant, image.kernel, image.initrd)
