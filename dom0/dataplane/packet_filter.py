"""Classic BPF on a packet socket: which frames it is given at all (Linux Documentation/networking/filter.rst)."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26

LDB, LDH, LD, AND, JEQ, RET = 0x30, 0x28, 0x20, 0x54, 0x15, 0x06
"""Load a byte, two, four from that offset; and; jump if equal; return so many bytes (linux/bpf_common.h)."""
PACKET_TYPE, DEVICE, TAG, TAG_PRESENT = 0xFFFFF004, 0xFFFFF008, 0xFFFFF02C, 0xFFFFF030
"""Offsets of what is not in the frame: SKF_AD_PKTTYPE, _IFINDEX, _VLAN_TAG, _VLAN_TAG_PRESENT (linux/filter.h)."""
OUTGOING = 4
"""PACKET_OUTGOING, linux/if_packet.h."""

Filter = tuple[tuple[int, int, int, int], ...]
"""Instructions: code, jump if true, jump if false, constant."""


def attach(packets: socket.socket, program: Filter) -> None:
    """``packets`` hears only what ``program`` accepts, from now on. OSError if the kernel refuses it."""
    code = b"".join(struct.pack("=HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
