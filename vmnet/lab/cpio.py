"""Writing an initramfs: the "newc" cpio format of Linux' Documentation/driver-api/early-userspace/buffer-format.rst."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import PurePosixPath


class Archive:
    """Files of an initramfs, in order; the same content gives the same bytes."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}

    def directory(self, path: str) -> None:
        """Add a folder and the ones above it."""
        for parent in (*reversed(PurePosixPath(path).parents), PurePosixPath(path)):
            if str(parent) not in (".", "/"):
                self._entries.setdefault(str(parent).lstrip("/"), (stat.S_IFDIR | 0o755, b"", (0, 0)))

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._add(path, stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        self._add(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def _add(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self.directory(str(PurePosixPath(path).parent))
        self._entries[path.lstrip("/")] = (mode, content, device)

    def packed(self) -> bytes:
        return b"".join(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        for number, (name, (mode, content, device)) in enumerate(self._entries.items(), 1):
            yield _entry(number, name, mode, content, device)
        yield _entry(0, "TRAILER!!!", 0, b"", (0, 0))


def _entry(inode: int, name: str, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
