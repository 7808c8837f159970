"""The ``bpf(2)`` system call, for two kinds of maps and two kinds of programs.

Only what the data path needs: a memory-mapped array map (its value is shared memory between the kernel's program and us), hash maps,
and programs for traffic control and for sockets. Raises OSError with the verifier's own words when the kernel refuses a program.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import struct

_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}[os.uname().machine]
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD, _MAP_LOOKUP_BATCH = 0, 2, 3, 5, 24
_MAP_TYPE_HASH, _MAP_TYPE_ARRAY = 1, 2
_F_MMAPABLE = 1 << 10
_PROG_TYPE_SOCKET_FILTER, _PROG_TYPE_SCHED_CLS = 1, 3
_SO_ATTACH_BPF = 50
_LOG_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attributes: bytes) -> int:
    return bpf_in_place(command, ctypes.create_string_buffer(attributes, max(len(attributes), 128)))


def bpf_in_place(command: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    """The kernel may write into the attributes."""
    result = int(_libc.syscall(_BPF_SYSCALL, command, buffer, len(buffer)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf command {command}: {os.strerror(number)}")
    return result


def create_shared_array(value_bytes: int, name: str) -> int:
    """A file descriptor of an array map with one value of ``value_bytes`` that can be memory-mapped (Linux 5.5)."""
    head = struct.pack("<5I", _MAP_TYPE_ARRAY, 4, value_bytes, 1, _F_MMAPABLE)
    return bpf(_MAP_CREATE, head + struct.pack("<II", 0, 0) + name.encode()[:15].ljust(16, b"\0"))


def map_shared_array(map_fd: int, value_bytes: int) -> mmap.mmap:
    size = -(-value_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    return mmap.mmap(map_fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def create_hash(key_bytes: int, value_bytes: int, most: int, name: str) -> int:
    """A file descriptor of a hash map of at most ``most`` keys."""
    head = struct.pack("<5I", _MAP_TYPE_HASH, key_bytes, value_bytes, most, 0)
    return bpf(_MAP_CREATE, head + struct.pack("<II", 0, 0) + name.encode()[:15].ljust(16, b"\0"))


def create_set(key_bytes: int, most: int, name: str) -> int:
    """A hash map whose values mean nothing."""
    return create_hash(key_bytes, 1, most, name)


def add_to_set(map_fd: int, key: bytes) -> None:
    """OSError (E2BIG) if the set is full."""
    _on_key(_MAP_UPDATE, map_fd, key)


def remove_from_set(map_fd: int, key: bytes) -> None:
    _on_key(_MAP_DELETE, map_fd, key)


def put(map_fd: int, key: bytes, value: bytes) -> None:
    """OSError (E2BIG) if the map is full."""
    _on_key(_MAP_UPDATE, map_fd, key, value)


def _on_key(command: int, map_fd: int, key: bytes, value: bytes = b"\0") -> None:
    held, given = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    bpf(command, struct.pack("<IxxxxQQQ", map_fd, ctypes.addressof(held), ctypes.addressof(given), 0))


def items(map_fd: int, key_bytes: int, value_bytes: int, most: int) -> list[tuple[bytes, bytes]]:
    """What a hash map of at most ``most`` keys has in it, in one call (Linux 5.6)."""
    keys, values = (ctypes.create_string_buffer(most * size) for size in (key_bytes, value_bytes))
    bucket = ctypes.create_string_buffer(8)
    places = (ctypes.addressof(one) for one in (bucket, keys, values))
    buffer = ctypes.create_string_buffer(struct.pack("<QQQQIIQQ", 0, *places, most, map_fd, 0, 0), 128)
    with contextlib.suppress(FileNotFoundError):  # the map's end, which is what was asked for
        bpf_in_place(_MAP_LOOKUP_BATCH, buffer)
    (count,) = struct.unpack_from("<I", buffer, 32)
    return list(
        zip(_pieces(keys.raw, key_bytes, count), _pieces(values.raw, value_bytes, count), strict=True)
    )


def _pieces(data: bytes, size: int, count: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, size * count, size)]


def load_socket_filter(code: bytes, name: str) -> int:
    """As :func:`load_classifier`, of a program for :func:`attach_to_socket`."""
    return _load(_PROG_TYPE_SOCKET_FILTER, code, name)


def attach_to_socket(packets: socket.socket, program_fd: int) -> None:
    """The program sees each packet that ``packets`` could get, and says how much of it that gets."""
    packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program_fd)


def load_classifier(code: bytes, name: str) -> int:
    """A file descriptor of a verified traffic-control program; OSError carries the verifier's log."""
    return _load(_PROG_TYPE_SCHED_CLS, code, name)


def _load(kind: int, code: bytes, name: str) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = struct.pack(
        "<IIQQIIQII16s",
        kind,
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
        return bpf(_PROG_LOAD, attributes)
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror}: {log.value.decode(errors='replace')[-2000:]}"
        ) from None
