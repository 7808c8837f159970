"""A moving VM's patience: its neighbours' BFD packets get a greater Detect Mult on their way to it. Pure: instructions only.

How long a system waits for its neighbour is the neighbour's Detect Mult times the agreed interval, and every packet may say it anew,
without a Poll Sequence (RFC 5880, 6.8.4 and 6.8.12). A VM that has just been moved looks at its timers before it reads what was held
for it: with 3 x 100 ms one that gets going slowly takes its neighbours for dead. So while it moves they are heard to say that they
are to be waited for ``Word.PATIENCE`` times as long. Nothing else of the packet is changed, and its checksum is mended.

Left as they are: packets with an authentication section (they would be refused), those of a session that is not up, fragments,
IP options, extension headers, VLAN tags, and headers outside the frame's linear part (no driver makes those of so short a frame).
"""

from __future__ import annotations

import socket

from dom0.dataplane.bpf_asm import DW, R0, R1, R2, R3, R4, R5, R6, R7, R9, R10, B, H, Program, W
from dom0.dataplane.gate_program import SKB_DATA, SKB_DATA_END, SKB_PROTOCOL, Word, increment
from dom0.router.bfd import AUTHENTICATION, MULTIHOP_PORT, SINGLE_HOP_PORT

_STORE_BYTES, _L4_CSUM_REPLACE = 9, 11
_MANGLED_0, _TWO_BYTES = 0x20, 2
"""A UDP checksum of 0 means none, and stays."""
_STACK = -16
_ETHER, _UDP_BYTES, _BFD_BYTES, _UDP = 14, 8, 24, 17
_MOST = 255


def prolong(code: Program) -> None:
    """For an unmarked or marked frame in R6's context; R7: the shared memory. All other registers are lost."""
    code.load(DW, R5, R7, Word.PATIENCE)
    code.jump_if("eq", R5, 0, "as it is")
    code.load(W, R9, R6, SKB_DATA)
    code.load(W, R3, R6, SKB_DATA_END)
    code.load(W, R5, R6, SKB_PROTOCOL)
    code.jump_if("eq", R5, socket.htons(0x0800), "bfd over ipv4")
    code.jump_if("ne", R5, socket.htons(0x86DD), "as it is")
    _of(code, 40)
    code.label("bfd over ipv4")
    _of(code, 20)
    code.label("as it is")


def _of(code: Program, ip_bytes: int) -> None:
    """Ends at "as it is"."""
    udp = _ETHER + ip_bytes
    bfd = udp + _UDP_BYTES
    code.mov_reg(R4, R9)
    code.alu("add", R4, bfd + _BFD_BYTES)
    code.jump_if_reg("gt", R4, R3, "as it is")
    if ip_bytes == 20:
        _only(code, B, _ETHER, 0x45)
        _only(code, B, _ETHER + 9, _UDP)
        code.load(H, R5, R9, _ETHER + 6)
        code.jump_if("set", R5, socket.htons(0x3FFF), "as it is")
    else:
        _only(code, B, _ETHER + 6, _UDP)
    code.load(H, R5, R9, udp + 2)
    code.jump_if("eq", R5, socket.htons(SINGLE_HOP_PORT), f"bfd {ip_bytes}")
    code.jump_if("ne", R5, socket.htons(MULTIHOP_PORT), "as it is")
    code.label(f"bfd {ip_bytes}")
    code.load(B, R5, R9, bfd)
    code.alu("and", R5, 0xE0)
    code.jump_if("ne", R5, 0x20, "as it is")  # version 1
    code.load(B, R5, R9, bfd + 1)
    code.jump_if("set", R5, AUTHENTICATION, "as it is")
    code.jump_if("lt", R5, 0xC0, "as it is")  # Up
    _multiply(code, udp, bfd + 2, ip_bytes)
    code.jump("as it is")


def _only(code: Program, size: int, offset: int, value: int) -> None:
    code.load(size, R5, R9, offset)
    code.jump_if("ne", R5, value, "as it is")


def _multiply(code: Program, udp: int, at: int, ip_bytes: int) -> None:
    """The byte at ``at`` (even from where UDP begins, as its checksum counts) by the patience, at most 255."""
    code.load(B, R5, R9, at)
    code.load(DW, R4, R7, Word.PATIENCE)
    code.alu_reg("mul", R5, R4)
    code.jump_if("le", R5, _MOST, f"fits {ip_bytes}")
    code.mov(R5, _MOST)
    code.label(f"fits {ip_bytes}")
    code.load(H, R3, R9, at)
    code.load(B, R4, R9, at + 1)
    code.store(B, R10, _STACK, R5)
    code.store(B, R10, _STACK + 1, R4)
    code.load(H, R4, R10, _STACK)
    code.mov_reg(R1, R6)
    code.mov(R2, udp + 6)
    code.mov(R5, _MANGLED_0 | _TWO_BYTES)
    code.call(_L4_CSUM_REPLACE)
    code.jump_if("ne", R0, 0, "as it is")
    code.mov_reg(R1, R6)
    code.mov(R2, at)
    code.mov_reg(R3, R10)
    code.alu("add", R3, _STACK)
    code.mov(R4, 1)
    code.mov(R5, 0)
    code.call(_STORE_BYTES)
    increment(code, Word.PROLONGED)
