"""The ``bpf(2)`` system call, for two kinds of maps and one kind of program.

Only what the data path needs: a memory-mapped array map (its value is shared memory between the kernel's program and us), a set of
keys, and a traffic-control program. Raises OSError with the verifier's own words when the kernel refuses a program.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}[os.uname().machine]
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD = 0, 2, 3, 5
_MAP_TYPE_HASH, _MAP_TYPE_ARRAY = 1, 2
_F_MMAPABLE = 1 << 10
_PROG_TYPE_SCHED_CLS = 3
_LOG_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), 128))
    result = int(_libc.syscall(_BPF_SYSCALL, command, buffer, len(buffer)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf command {command}: {os.strerror(number)}")
    return result


def create_shared_array(value_bytes: int, name: str) -> int:
    """A file descriptor of an array map with one value of ``value_bytes`` that can be memory-mapped (Linux 5.5)."""
    head = struct.pack("<5I", _MAP_TYPE_ARRAY, 4, value_bytes, 1, _F_MMAPABLE)
    return _bpf(_MAP_CREATE, head + struct.pack("<II", 0, 0) + name.encode()[:15].ljust(16, b"\0"))


def map_shared_array(map_fd: int, value_bytes: int) -> mmap.mmap:
    size = -(-value_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    return mmap.mmap(map_fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def create_set(key_bytes: int, most: int, name: str) -> int:
    """A file descriptor of a hash map of at most ``most`` keys whose values mean nothing."""
    head = struct.pack("<5I", _MAP_TYPE_HASH, key_bytes, 1, most, 0)
    return _bpf(_MAP_CREATE, head + struct.pack("<II", 0, 0) + name.encode()[:15].ljust(16, b"\0"))


def add_to_set(map_fd: int, key: bytes) -> None:
    """OSError (E2BIG) if the set is full."""
    _on_key(_MAP_UPDATE, map_fd, key)


def remove_from_set(map_fd: int, key: bytes) -> None:
    _on_key(_MAP_DELETE, map_fd, key)


def _on_key(command: int, map_fd: int, key: bytes) -> None:
    held, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(1)
    _bpf(command, struct.pack("<IxxxxQQQ", map_fd, ctypes.addressof(held), ctypes.addressof(value), 0))


def load_classifier(code: bytes, name: str) -> int:
    """A file descriptor of a verified traffic-control program; OSError carries the verifier's log."""
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = struct.pack(
        "<IIQQIIQII16s",
        _PROG_TYPE_SCHED_CLS,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_text),
        1,
        _LOG_BYTES,
        ctypes.addressof(log),
        0,
        0,
        name.encode()[:15].ljust(16, b"\0"),
    )
    try:
        return _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror}: {log.value.decode(errors='replace')[-2000:]}"
        ) from None
