"""Classic BPF on a packet socket: which frames it is given at all (Linux Documentation/networking/filter.rst)."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26

Filter = tuple[tuple[int, int, int, int], ...]
"""Instructions: code, jump if true, jump if false, constant."""


def attach(packets: socket.socket, program: Filter) -> None:
    """``packets`` hears only what ``program`` accepts, from now on. OSError if the kernel refuses it."""
    code = b"".join(struct.pack("=HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
