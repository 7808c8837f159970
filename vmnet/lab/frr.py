"""FRR in the guest: its daemons, the FPM module and every library that they need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import debs
from vmnet.lab.command import run
from vmnet.lab.cpio import Archive

DAEMONS = ("zebra", "staticd", "ospfd", "bgpd", "bfdd", "watchfrr", "mgmtd")
_REQUIRED = ("zebra", "staticd", "ospfd", "bgpd", "bfdd")
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
_USERS = "root:x:0:0:root:/root:/bin/sh\nfrr:x:92:92:frr:/run/frr:/bin/false\n"
_GROUPS = "root:x:0:\nfrrvty:x:85:frr\nfrr:x:92:\n"

_PAM_MODULE = "lib/security/pam_permit.so"
_PAM = "".join(f"{kind} sufficient /{_PAM_MODULE}\n" for kind in ("auth", "account"))  # vtysh asks PAM


def add(archive: Archive, store: Path, root: Path) -> None:
    """Put FRR into an initramfs; packages are kept in ``store`` and unpacked below ``root``.

    Raises LabError when a daemon or a library is missing.
    """
    debs.unpack(debs.library_packages("frr"), store, root)
    programs = list(_programs(root))
    for file, target in programs:
        archive.file(target, file.read_bytes(), 0o755)
    for file in _libraries(root, [file for file, _ in programs]):
        archive.file(f"lib/{file.name}", file.resolve().read_bytes(), 0o755)
    loaders = root.rglob("ld-linux-x86-64.so.2")
    loader = next((path for path in loaders if not path.is_symlink()), None)
    if loader is None:
        raise LabError("libc6 holds no dynamic loader")
    archive.file("lib64/ld-linux-x86-64.so.2", loader.read_bytes(), 0o755)
    _files(archive)


def _programs(root: Path) -> Iterator[tuple[Path, str]]:
    for name in DAEMONS:
        file = root / "usr/lib/frr" / name
        if file.exists():
            yield file, f"usr/lib/frr/{name}"
        elif name in _REQUIRED:
            raise LabError(f"the package frr holds no {name}")
    yield root / "usr/bin/vtysh", "usr/bin/vtysh"
    for module in root.rglob("pam_permit.so"):
        yield module, _PAM_MODULE
    for module in root.rglob("dplane_fpm_nl.so"):
        yield module, f"usr/lib/x86_64-linux-gnu/frr/modules/{module.name}"


def _libraries(root: Path, files: list[Path]) -> list[Path]:
    known = {p.name: p for p in root.rglob("*.so*") if p.exists()}
    found: dict[str, Path] = {}
    todo = list(files)
    while todo:
        listing = run(["readelf", "-d", str(todo.pop().resolve())]).stdout
        for name in set(_NEEDED.findall(listing)) - set(found):
            if name not in known:
                raise LabError(f"no package of FRR's holds {name}")
            found[name] = known[name]
            todo.append(known[name])
    return list(found.values())


def _files(archive: Archive) -> None:
    archive.file("etc/passwd", _USERS.encode())
    archive.file("etc/group", _GROUPS.encode())
    for service in ("frr", "other"):
        archive.file(f"etc/pam.d/{service}", _PAM.encode())
    archive.file("etc/frr/vtysh.conf", b"service integrated-vtysh-config\n")
    archive.file("etc/frr/frr.conf", b"frr defaults traditional\n")
    for folder in ("run/frr", "var/log/frr", "var/lib/frr", "var/tmp/frr"):
        archive.directory(folder)
