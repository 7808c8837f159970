"""Kernel modules for the guest: which ones, in which order, uncompressed."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Sequence
from pathlib import Path

from vmnet.errors import LabError

WANTED = ("virtio_pci", "virtio_net")
"""What each guest needs; what these depend on is read from the modules themselves."""


def in_load_order(root: Path, wanted: Sequence[str] = WANTED) -> list[tuple[str, bytes]]:
    """Name and content of the ``wanted`` modules below ``root``, each after those it depends on.

    Modules that the kernel has built in are left out. Raises LabError when one is neither there nor built in.
    """
    files = {p.name.split(".ko")[0].replace("-", "_"): p for p in root.rglob("*.ko*")}
    built_in = {
        Path(line).stem.replace("-", "_")
        for listing in root.rglob("modules.builtin")
        for line in listing.read_text().split()
    }
    ordered: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in ordered or name in built_in:
            return
        if name not in files:
            raise LabError(f"the kernel package has no module {name}", "another kernel package may have it")
        content = _content(files[name])
        for dependency in _depends(content):
            visit(dependency)
        ordered[name] = content

    for name in wanted:
        visit(name)
    return list(ordered.items())


def _content(file: Path) -> bytes:
    """Debian 12 ships .ko, Debian 13 ships .ko.xz."""
    data = file.read_bytes()
    if file.suffix == ".xz":
        return lzma.decompress(data)
    if file.suffix == ".gz":
        return gzip.decompress(data)
    return data


def _depends(module: bytes) -> list[str]:
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    names = found[1].decode().split(",") if found else []
    return [name.replace("-", "_") for name in names if name]
