"""More room for the frames that another process's packet sockets have received and it has not read yet.

Userspace Open vSwitch reads its ports through AF_PACKET sockets with the system's default buffer (net.core.rmem_default): a dozen
frames of 9000 bytes. A migration's memory comes in bursts far above that, and what does not fit is dropped, others' frames too.
The default is the whole machine's; so the lab enlarges the sockets themselves (pidfd_getfd(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_PIDFD_GETFD = 438  # the same number on every architecture
_SO_RCVBUFFORCE = 33

_libc = ctypes.CDLL(None, use_errno=True)


def enlarge(pid: int, receive_bytes: int) -> int:
    """Every packet socket that process ``pid`` has open gets a buffer of ``receive_bytes``. How many those are."""
    found = 0
    asked = receive_bytes // 2  # the kernel doubles it
    for packets in _packet_sockets(pid):
        with packets:
            packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, asked)
            found += 1
    return found


def _packet_sockets(pid: int) -> Iterator[socket.socket]:
    process = os.pidfd_open(pid)
    try:
        for link in sorted(Path(f"/proc/{pid}/fd").iterdir()):
            one = _same_socket(process, link)
            if one is None:
                continue
            if one.family == socket.AF_PACKET:
                yield one
            else:
                one.close()
    finally:
        os.close(process)


def _same_socket(process: int, link: Path) -> socket.socket | None:
    with contextlib.suppress(OSError):  # closed meanwhile
        if os.readlink(link).startswith("socket:"):  # noqa: PTH115 - what it names is no path
            fd = _libc.syscall(_PIDFD_GETFD, process, int(link.name), 0)
            return socket.socket(fileno=fd) if fd >= 0 else None
    return None
