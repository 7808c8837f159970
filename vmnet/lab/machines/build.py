"""Building the disk of a machine from Debian's packages. Takes minutes; see image.py for the cache."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab.command import run
from vmnet.lab.machines import packages, pip_settings, tree
from vmnet.lab.machines.packages import Release

HERE = Path(__file__).parent
SOURCES_VARIABLE = "VMNET_MACHINE_SOURCES"
"""Environment: a file with apt's sources, where mmdebstrap's own do not do."""
PROGRAMS = ("mmdebstrap", "qemu-img", "mkfs.ext4", "sfdisk", "ssh", "ssh-keygen", "nice")
_BUILD_S = 1800.0
_DISK_MIB = 8192
SECTOR_BYTES = 512
PARTITION_SECTOR = 2048


def require() -> None:
    """Raises LabError when a program of the builder is missing."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}", "run scripts/setup.sh machines")
    if os.geteuid() != 0:
        raise LabError("the image of a machine is built as root", "run it with sudo")


def build(release: Release, public_key: Path, out: Path) -> None:
    """Fill ``out`` with base.qcow2, vmlinuz, initrd and facts.json. Raises LabError when a step fails."""
    require()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f"build{release}-") as name:
        scratch = Path(name)
        files = scratch / "files"
        files.mkdir()
        _stage(files, public_key)
        root = scratch / "root"
        _make_tree(release, root, files)
        _make_disk(root, files, scratch / "disk.raw", out / "base.qcow2")
        for name in ("vmlinuz", "initrd"):
            shutil.copyfile(files / name, out / name)
        (out / "facts.json").write_text(json.dumps(_facts(release, files), indent=1) + "\n")


def _stage(files: Path, public_key: Path) -> None:
    shutil.copyfile(public_key, files / "key.pub")
    shutil.copyfile(HERE / "session.c", files / "session.c")
    tree.pack(files / "vmnet.tar")
    listing = run([sys.executable, "-m", "pip", "config", "list"], check=False).stdout
    settings = pip_settings.parse(listing)
    (files / "pip.env").write_text(pip_settings.shell(settings, os.environ))
    if cert := pip_settings.certificate(settings):
        shutil.copyfile(cert, files / "cert.pem")


def _make_tree(release: Release, root: Path, files: Path) -> None:
    sources = [found] if (found := os.environ.get(SOURCES_VARIABLE)) else []
    bake = f"'{HERE / 'bake.sh'}' \"$1\" '{files}'"
    argv = [
        "setpriv",
        "--pdeathsig",
        "TERM",
        "nice",
        *packages.mmdebstrap(release, str(root), [bake], sources),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    try:
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, timeout=_BUILD_S, check=False, stdin=subprocess.DEVNULL
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LabError(f"mmdebstrap did not end within {_BUILD_S:g} s") from None
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        log = root.parent.parent / "mmdebstrap.log"
        log.write_text(done.stderr + done.stdout)
        reason = next((line for line in reversed(words) if re.match(r"(ERROR|E:|error)", line)), "no output")
        raise LabError(
            f"mmdebstrap failed with code {done.returncode}: {reason}", f"all it wrote is in {log}"
        )


def _make_disk(root: Path, files: Path, raw: Path, disk: Path) -> None:
    """A disk with a boot loader and one partition, written without mounting anything."""
    with raw.open("wb") as out:
        out.truncate(_DISK_MIB << 20)
    offset = PARTITION_SECTOR * SECTOR_BYTES
    run(
        ["mkfs.ext4", "-q", "-F", "-L", "machine", "-m", "0", "-E", f"offset={offset}", "-d", str(root), str(raw),
         f"{_DISK_MIB - offset // (1 << 20)}M"],
        timeout=600,
    )  # fmt: skip
    table = f"label: dos\nstart={PARTITION_SECTOR}, type=83, bootable\n"
    run(["sfdisk", "-q", "--no-reread", "--no-tell-kernel", str(raw)], text=table)
    with raw.open("r+b") as out:
        # the boot sector's default is to load the core image from the next sectors, the gap before the partition
        out.write((files / "boot.img").read_bytes()[:440])
        out.seek(SECTOR_BYTES)
        out.write((files / "core.img").read_bytes())
    run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(disk)], timeout=600)
    raw.unlink()


def _facts(release: Release, files: Path) -> dict[str, object]:
    """What is inside, for those who start it without asking it."""
    versions = dict(line.split(" ", 1) for line in (files / "packages").read_text().splitlines())
    kernel = next((name for name in versions if re.match(r"linux-image-\d", name)), "")
    types = re.findall(r"^pc-q35-([\d.]+)\s", (files / "machine-types").read_text(), re.MULTILINE)
    newest = max((tuple(map(int, found.split("."))) for found in types), default=())
    return {
        "release": release,
        "kernel": versions.get(kernel, "").strip() or kernel,
        "libvirt": versions.get("libvirt-daemon-system", ""),
        "qemu": versions.get("qemu-system-x86", ""),
        "openvswitch": versions.get("openvswitch-switch", ""),
        "machine_type": f"pc-q35-{'.'.join(map(str, newest))}",
    }
