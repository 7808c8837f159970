"""All frames for a tap of several queues go by its first one, for a while.

The kernel chooses a queue by a frame's flow. A QEMU whose guest does not run yet reads one frame of each queue and, with vhost,
never delivers it (of the first queue that frame is ours, :func:`dom0.dataplane.announce.spare_frame`); and the guest reads the
queues one beside the other. A program that chooses for a tap is set at a descriptor of that tap (``TUNSETSTEERINGEBPF``, Linux
4.16, ``drivers/net/tun.c``): its hypervisor's is borrowed for that moment (``pidfd_getfd``, Linux 5.6). The hypervisor takes
such a program away when its guest's device is reset, which it is before the guest comes, so it is set again when the guest is
about to run.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dom0.dataplane import bpf_asm, bpf_syscall, netdev

_TUNSETSTEERINGEBPF = 0x800454E0
_SIOCGIFHWADDR = 0x8927
_PIDFD_GETFD = 438
_TUN = "/dev/net/tun"

_libc = ctypes.CDLL(None, use_errno=True)


def holder(tap: str) -> int | None:
    """The process of our network that has ``tap`` open, its hypervisor; None if there is none. Looks at all: some 10 ms and more."""
    ours = _network("thread-self")
    for process in Path("/proc").glob("[0-9]*"):
        if _network(process.name) == ours and next(_descriptors(int(process.name), tap), None) is not None:
            return int(process.name)
    return None


def _network(process: str) -> int | None:
    """Which network namespace; two may have taps of one name."""
    with suppress(OSError):
        return Path(f"/proc/{process}/ns/net").stat().st_ino
    return None


def by_first_queue(tap: str, process: int | None = None) -> int:
    """From now on, until :func:`as_usual`, or the hypervisor resets the guest's device. OSError if the kernel refuses.

    ``process``: the :func:`holder`, as far as it is known; first it is libvirt, which gives the tap to QEMU. Returns which it is.
    """
    code = bpf_asm.Program()
    code.mov(bpf_asm.R0, 0)
    code.exit()
    program = bpf_syscall.load_socket_filter(code.assemble(), "vmnet_queue")
    try:
        return _set(tap, process, program)
    finally:
        os.close(program)


def as_usual(tap: str, process: int | None = None) -> None:
    """The kernel chooses again. OSError if it refuses, ProcessLookupError if the hypervisor has gone."""
    _set(tap, process, -1)


def _set(tap: str, process: int | None, program: int) -> int:
    if process is not None:
        with suppress(ProcessLookupError):
            return _set_by(process, tap, program)
    found = holder(tap)
    if found is None:
        raise ProcessLookupError(f"no process has {tap} open")
    return _set_by(found, tap, program)


def _set_by(process: int, tap: str, program: int) -> int:
    with _borrowed(tap, process) as descriptor:
        fcntl.ioctl(descriptor, _TUNSETSTEERINGEBPF, struct.pack("i", program))
    return process


@contextmanager
def _borrowed(tap: str, process: int) -> Iterator[int]:
    with ExitStack() as open_ones:
        of_process = os.pidfd_open(process)
        open_ones.callback(os.close, of_process)
        for number in _descriptors(process, tap):
            descriptor = int(_libc.syscall(_PIDFD_GETFD, of_process, number, 0))
            if descriptor < 0:
                code = ctypes.get_errno()
                raise OSError(code, f"cannot borrow {tap} of process {process}: {os.strerror(code)}")
            open_ones.callback(os.close, descriptor)
            if _mac_of(descriptor) == netdev.mac_of(tap):
                yield descriptor
                return
        raise ProcessLookupError(f"process {process} has {tap} no longer open")


def _mac_of(descriptor: int) -> bytes:
    """Of the tap: one of another network may have the same name."""
    return fcntl.ioctl(descriptor, _SIOCGIFHWADDR, bytes(40))[18:24]


def _descriptors(process: int, tap: str) -> Iterator[int]:
    """Those of an attached queue of ``tap``. Processes end at any time, and their files."""
    with suppress(OSError):
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                if str(entry.readlink()) == _TUN and _is_of(process, entry.name, tap):
                    yield int(entry.name)


def _is_of(process: int, number: str, tap: str) -> bool:
    said = Path(f"/proc/{process}/fdinfo/{number}").read_text()
    return f"iff:\t{tap}" in said.splitlines()
