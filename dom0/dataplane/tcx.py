"""Programs on a device's ingress and egress by tcx (Linux 6.6, include/uapi/linux/bpf.h).

No qdisc is needed: nobody who makes, changes or removes qdiscs (libvirt's ``<bandwidth>``, Open vSwitch's policing) meets a program of
ours, and other programs by tcx stay. A device takes no pause when one is attached. It stays attached when its maker ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache
from typing import Final

from dom0.dataplane.bpf_syscall import bpf, bpf_in_place

_PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 8, 9, 13, 15, 16
_REPLACE, _BEFORE = 1 << 2, 1 << 3
_MOST: Final = 64
"""Programs at one place (BPF_MPROG_MAX)."""
_INFO_BYTES, _NAME_AT, _NAME_BYTES = 256, 64, 16
"""Of ``struct bpf_prog_info``."""
_LOOPBACK: Final = 1
INGRESS: Final = 46
EGRESS: Final = 47


@cache
def works() -> bool:
    """Whether this kernel has it."""
    try:
        _ids(_LOOPBACK, EGRESS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def attach(index: int, where: int, program_fd: int, ours: str) -> None:
    """Before all others at the device with that ``index``; in place of the one whose name begins with ``ours``, if there is one."""
    earlier = _find(index, where, ours)
    if earlier is None:
        bpf(_PROG_ATTACH, struct.pack("<5I", index, program_fd, where, _BEFORE, 0))
        return
    try:
        bpf(_PROG_ATTACH, struct.pack("<5I", index, program_fd, where, _REPLACE, earlier))
    finally:
        os.close(earlier)


def detach(index: int, where: int, ours: str) -> None:
    """Nothing happens if there is none."""
    found = _find(index, where, ours)
    if found is None:
        return
    try:
        bpf(_PROG_DETACH, struct.pack("<5I", index, found, where, 0, 0))
    finally:
        os.close(found)


def is_attached(index: int, where: int, ours: str) -> bool:
    found = _find(index, where, ours)
    if found is not None:
        os.close(found)
    return found is not None


def _find(index: int, where: int, ours: str) -> int | None:
    """A descriptor of the first program whose name begins so."""
    for identity in _ids(index, where):
        try:
            program = bpf(_PROG_GET_FD_BY_ID, struct.pack("<I", identity))
        except FileNotFoundError:  # it has gone meanwhile
            continue
        if _name(program).startswith(ours):
            return program
        os.close(program)
    return None


def _ids(index: int, where: int) -> tuple[int, ...]:
    found = (ctypes.c_uint32 * _MOST)()
    query = struct.pack("<IIIIQIIQQQQ", index, where, 0, 0, ctypes.addressof(found), _MOST, 0, 0, 0, 0, 0)
    answer = ctypes.create_string_buffer(query, 128)
    bpf_in_place(_PROG_QUERY, answer)
    (count,) = struct.unpack_from("<I", answer, 24)
    return tuple(found[:count])


def _name(program_fd: int) -> str:
    info = ctypes.create_string_buffer(_INFO_BYTES)
    bpf(_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", program_fd, _INFO_BYTES, ctypes.addressof(info)))
    return info.raw[_NAME_AT : _NAME_AT + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")
