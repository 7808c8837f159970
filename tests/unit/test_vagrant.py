"""The box for Vagrant, and which parts of docs/install.md are followed on its machines."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from vmnet.errors import LabError
from vmnet.lab.machines import box, build, image
from vmnet.lab.machines.ext4 import Entry, Filesystem

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/install.md").read_text()
ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "shadow": "root:*:20000:0:99999:7:::\n",
    "group": "root:x:0:\n",
    "gshadow": "root:*::\n",
}
needs_ext4 = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("mkfs.ext4", "debugfs", "e2fsck")), reason="e2fsprogs is missing"
)


@pytest.fixture
def follower(monkeypatch):
    """vagrant/follow_howto.py, as the client runs it."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/machines"))
    monkeypatch.syspath_prepend(str(ROOT / "vagrant"))
    for name in ("howto", "follow_howto"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = importlib.import_module("follow_howto")
    monkeypatch.delitem(sys.modules, "follow_howto")
    return found


@pytest.fixture
def disk(tmp_path):
    """A disk as build.py makes them, with the files of accounts in it and little else."""
    tree = tmp_path / "tree"
    for folder in (
        "etc/sudoers.d",
        "etc/systemd/network",
        "etc/systemd/system/multi-user.target.wants",
        "home",
    ):
        (tree / folder).mkdir(parents=True)
    for name, text in ACCOUNTS.items():
        (tree / "etc" / name).write_text(text)
    raw = tmp_path / "disk.raw"
    offset = build.PARTITION_SECTOR * build.SECTOR_BYTES
    with raw.open("wb") as out:
        out.truncate(offset + (16 << 20))
    argv = ["mkfs.ext4", "-q", "-F", "-E", f"offset={offset}", "-d", str(tree), str(raw), "16M"]
    subprocess.run(argv, check=True, capture_output=True)
    return raw


def _stat(disk, path):
    device = f"{disk}?offset={build.PARTITION_SECTOR * build.SECTOR_BYTES}"
    text = subprocess.run(["debugfs", "-R", f"stat {path}", device], capture_output=True, text=True).stdout
    kind = re.search(r"Type: (\S+)\s+Mode:\s+(\d+)", text)
    owner = re.search(r"User:\s+(\d+)\s+Group:\s+(\d+)", text)
    return kind[1], int(kind[2], 8), int(owner[1]), int(owner[2])


@needs_ext4
def test_files_folders_and_links_are_put_into_a_filesystem(disk):
    found = Filesystem(disk, build.PARTITION_SECTOR * build.SECTOR_BYTES)
    assert found.read("/etc/passwd") == ACCOUNTS["passwd"]
    found.put(
        [
            Entry("/etc/passwd", "other\n", 0o640, 0, 42),
            Entry("/home/x", None, 0o700, 1000, 1001),
            Entry("/home/x/link", link="/etc/passwd"),
        ]
    )
    assert found.read("/etc/passwd") == "other\n"
    assert _stat(disk, "/etc/passwd") == ("regular", 0o640, 0, 42)
    assert _stat(disk, "/home/x") == ("directory", 0o700, 1000, 1001)
    assert _stat(disk, "/home/x/link")[0] == "symlink"


@needs_ext4
def test_a_file_that_cannot_be_written_is_an_error(disk):
    found = Filesystem(disk, build.PARTITION_SECTOR * build.SECTOR_BYTES)
    with pytest.raises(LabError, match="/no/such/folder/file"):
        found.put([Entry("/no/such/folder/file", "text")])
    with pytest.raises(LabError, match="no /etc/nothing"):
        found.read("/etc/nothing")


@needs_ext4
@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing")
def test_a_box_has_the_disk_and_the_user_of_vagrant(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(image, "root", lambda: tmp_path)
    base = image.MachineImage(tmp_path / "debian12-0", 12)
    base.folder.mkdir()
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(disk), str(base.disk)], check=True)
    monkeypatch.setattr(image, "ensure", lambda release, tell: base)
    made = box.ensure(12)
    assert box.ensure(12) == made and not (tmp_path / "box-12").exists()
    with tarfile.open(made) as tar:
        assert tar.getnames() == ["metadata.json", "Vagrantfile", "box.img"]
        tar.extractall(tmp_path / "out")
    assert json.loads((tmp_path / "out/metadata.json").read_text()) == {
        "provider": "libvirt", "format": "qcow2", "virtual_size": 1,
    }  # fmt: skip
    raw = tmp_path / "again.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(tmp_path / "out/box.img"), str(raw)], check=True)
    assert _stat(raw, "/home/vagrant/.ssh/authorized_keys") == ("regular", 0o600, 1000, 1000)
    assert _stat(raw, "/etc/sudoers.d/vagrant") == ("regular", 0o440, 0, 0)
    passwd = Filesystem(raw, build.PARTITION_SECTOR * build.SECTOR_BYTES).read("/etc/passwd")
    assert passwd == ACCOUNTS["passwd"] + "vagrant:x:1000:1000::/home/vagrant:/bin/bash\n"


def test_an_image_with_such_a_user_is_refused():
    taken = ACCOUNTS | {"passwd": "someone:x:1000:1000::/home/someone:/bin/sh\n"}
    with pytest.raises(LabError, match="1000"):
        box.entries(taken)


def test_the_page_is_followed_but_for_what_the_box_has(follower):
    found = list(follower.wanted(PAGE, update=False))
    assert next(step.heading[:2] for step in found if step.heading[0].isdigit()) == "3."
    commands = [command for step in found for command in step.commands if not step.path]
    assert "vmnet hooks install" in commands and "vmnet pki libvirt" in commands
    assert [step.path for step in found if step.path] == ["/etc/vmnet/vmnet.toml"] * 2
    assert not any(
        word in command for command in commands for word in ("apt-get", "git ", "pip", "rm -r", "nft")
    )


def test_an_update_downloads_nothing(follower):
    commands = [command for step in follower.wanted(PAGE, update=True) for command in step.commands]
    assert commands[0] == "vmnet hooks install" and commands[-1] == "systemctl restart vmnet-dom0d"


def test_the_machines_have_the_addresses_of_the_page(follower):
    text = (ROOT / "vagrant/Vagrantfile").read_text()
    machines = dict(re.findall(r'"(\w+)" => "([\d.]+)"', text.partition("MACHINES =")[2].partition("\n")[0]))
    assert {name: machines[name] for name in follower.HOSTS} == follower.HOSTS
    assert all(f"`{name}` ({address})" in PAGE for name, address in follower.HOSTS.items())
