"""A box for Vagrant and libvirt: the image of a machine, with what Vagrant expects of a box (docs "Creating a Base Box")."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab.command import run
from vmnet.lab.machines import build, image, packages
from vmnet.lab.machines.ext4 import Entry, Filesystem
from vmnet.lab.machines.image import MachineImage, Tell
from vmnet.lab.machines.packages import Release

PROGRAMS = ("debugfs", "e2fsck", "qemu-img")
_OFFSET_BYTES = build.PARTITION_SECTOR * build.SECTOR_BYTES
_CONVERT_S = 1800.0
_FORMAT = 1
"""To be raised when _pack() makes something else of the same."""
_ACCOUNTS = ("passwd", "shadow", "group", "gshadow")
_UID = 1000
# The public half of a key that everybody has: Vagrant's convention for boxes. Whoever reaches such a machine controls it.
_INSECURE_KEY = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oX"
    "evct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG"
    "0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+"
    "FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key\n"
)
# Vagrant's first network has DHCP. The other interfaces are the Vagrantfile's, by ifupdown.
_NETWORK = """[Match]
Name=eth0

[Network]
DHCP=ipv4
IPv6AcceptRA=no

[DHCPv4]
ClientIdentifier=mac
"""
# Emulated processors are slow: units get more time to start.
_PATIENCE = "[Manager]\nDefaultTimeoutStartSec=900\n"
_METADATA = {"provider": "libvirt", "format": "qcow2"}
_VAGRANTFILE = """Vagrant.configure("2") do |config|
  config.vm.synced_folder ".", "/vagrant", disabled: true
  config.vm.provider :libvirt do |p|
    p.machine_type = "q35"
    p.disk_bus = "virtio"
    p.nic_model_type = "virtio"
  end
end
"""


def entries(accounts: Mapping[str, str]) -> list[Entry]:
    """What is put into the image. ``accounts``: the image's /etc/passwd, shadow, group and gshadow. Pure.

    Raises LabError when the image has such a user already.
    """
    if any(f":{_UID}:" in accounts[file] or "vagrant:" in accounts[file] for file in ("passwd", "group")):
        raise LabError(f"the image has a user vagrant or the number {_UID} already")
    lines = {
        "passwd": (f"vagrant:x:{_UID}:{_UID}::/home/vagrant:/bin/bash", 0o644, 0),
        "shadow": ("vagrant:*:20000:0:99999:7:::", 0o640, 42),
        "group": (f"vagrant:x:{_UID}:", 0o644, 0),
        "gshadow": ("vagrant:!::", 0o640, 42),
    }
    found = [
        Entry(f"/etc/{file}", f"{accounts[file]}{line}\n", mode, 0, group)
        for file, (line, mode, group) in lines.items()
    ]
    wants = "/etc/systemd/system/multi-user.target.wants"
    return [
        *found,
        Entry("/etc/sudoers.d/vagrant", "vagrant ALL=(ALL) NOPASSWD: ALL\n", 0o440),
        Entry("/home/vagrant", None, 0o755, _UID, _UID),
        Entry("/home/vagrant/.ssh", None, 0o700, _UID, _UID),
        Entry("/home/vagrant/.ssh/authorized_keys", _INSECURE_KEY, 0o600, _UID, _UID),
        Entry("/etc/systemd/network/30-vagrant.network", _NETWORK),
        Entry(
            f"{wants}/systemd-networkd.service",
            link="/lib/systemd/system/systemd-networkd.service",
        ),
        Entry("/etc/systemd/system.conf.d", None, 0o755),
        Entry("/etc/systemd/system.conf.d/slow.conf", _PATIENCE),
    ]


def _place(base: MachineImage) -> Path:
    blank = dict.fromkeys(_ACCOUNTS, "")
    made_of = repr((_FORMAT, entries(blank), _METADATA, _VAGRANTFILE))
    return image.root() / f"vagrant-{base.folder.name}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}.box"


def ensure(release: Release, tell: Tell = lambda line: None) -> Path:
    """The cached box, made first if need be. Raises LabError when it cannot be made."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}", "run scripts/setup.sh box")
    base = image.ensure(release, tell)
    with _locked():
        box = _place(base)
        if not box.exists():
            tell(f"packing the box of a Debian {release} machine (a minute or more)")
            for old in image.root().glob(f"vagrant-debian{release}-*.box"):
                old.unlink()
            scratch = image.root() / f"box-{release}"
            shutil.rmtree(scratch, ignore_errors=True)  # of a packing that was killed; we hold the lock
            scratch.mkdir()
            try:
                _pack(base, scratch).rename(box)
            finally:
                shutil.rmtree(scratch)
        return box


@contextmanager
def _locked() -> Iterator[None]:
    """One packing at a time. Labs do not wait for it, as they would for the lock of the image."""
    with (image.root() / "lock-box").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pack(base: MachineImage, scratch: Path) -> Path:
    raw, disk, box = (scratch / name for name in ("disk.raw", "box.img", "machine.box"))
    run(
        ["qemu-img", "convert", "-W", "-t", "unsafe", "-O", "raw", str(base.disk), str(raw)],
        timeout=_CONVERT_S,
    )
    filesystem = Filesystem(raw, _OFFSET_BYTES)
    filesystem.put(entries({name: filesystem.read(f"/etc/{name}") for name in _ACCOUNTS}))
    compressed = ["-c", "-m", "2", "-W", "-o", "compression_type=zstd"]
    run(["qemu-img", "convert", *compressed, "-O", "qcow2", str(raw), str(disk)], timeout=_CONVERT_S)
    size_gib = -(-raw.stat().st_size // (1 << 30))
    (scratch / "metadata.json").write_text(json.dumps({**_METADATA, "virtual_size": size_gib}) + "\n")
    (scratch / "Vagrantfile").write_text(_VAGRANTFILE)
    with tarfile.open(box, "w") as out:  # not compressed: the disk is
        for name in ("metadata.json", "Vagrantfile", "box.img"):
            out.add(scratch / name, name)
    return box


def main(arguments: list[str]) -> None:
    """``python -m vmnet.lab.machines.box [12] [13]``: make what is missing, print where it is."""
    for release in packages.SUITES:
        if str(release) in arguments or (not arguments and release == 12):
            print(ensure(release, lambda line: print(line, file=sys.stderr)))


if __name__ == "__main__":
    main(sys.argv[1:])
