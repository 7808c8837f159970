"""A very small eBPF assembler: just the instructions the gate needs, with labels instead of counted offsets.

Pure: it turns instructions into bytes. Loading them is ``bpf_syscall``'s work. Encoding: Linux Documentation/bpf/standardization
(64-bit instructions: opcode, registers, 16-bit offset, 32-bit immediate, native byte order).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

B, H, W, DW = 0x10, 0x08, 0x00, 0x18
_JUMPS = {"ja": 0x00, "eq": 0x10, "gt": 0x20, "ge": 0x30, "set": 0x40, "ne": 0x50, "lt": 0xA0, "le": 0xB0}
_ALU = {"add": 0x00, "sub": 0x10, "mul": 0x20, "or": 0x40, "and": 0x50, "mov": 0xB0}
PSEUDO_MAP_FD, PSEUDO_MAP_VALUE = 1, 2


@dataclass(frozen=True)
class _Instruction:
    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    immediate: int = 0
    label: str = ""


@dataclass
class Program:
    """Collects instructions; ``assemble()`` resolves labels and gives the bytes ``BPF_PROG_LOAD`` takes."""

    _code: list[_Instruction] = field(default_factory=list)
    _labels: dict[str, int] = field(default_factory=dict)

    def label(self, name: str) -> None:
        if name in self._labels:
            raise ValueError(f"label {name!r} is there twice")
        self._labels[name] = len(self._code)

    def mov(self, dst: int, immediate: int) -> None:
        self._code.append(_Instruction(0x07 | _ALU["mov"], dst, immediate=immediate))

    def mov_reg(self, dst: int, src: int) -> None:
        self._code.append(_Instruction(0x0F | _ALU["mov"], dst, src))

    def alu(self, operation: str, dst: int, immediate: int) -> None:
        self._code.append(_Instruction(0x07 | _ALU[operation], dst, immediate=immediate))

    def alu_reg(self, operation: str, dst: int, src: int) -> None:
        self._code.append(_Instruction(0x0F | _ALU[operation], dst, src))

    def shift_left(self, dst: int, bits: int) -> None:
        self._code.append(_Instruction(0x67, dst, immediate=bits))

    def shift_out_high(self, dst: int) -> None:
        """Keep the low 32 bits (a 32-bit move clears the others)."""
        self._code.append(_Instruction(0xBC, dst, dst))

    def load(self, size: int, dst: int, src: int, offset: int) -> None:
        self._code.append(_Instruction(0x61 | size, dst, src, offset))

    def store(self, size: int, dst: int, offset: int, src: int) -> None:
        self._code.append(_Instruction(0x63 | size, dst, src, offset))

    def atomic_add(self, dst: int, offset: int, src: int) -> None:
        """64-bit ``*(dst + offset) += src``, atomic."""
        self._code.append(_Instruction(0xDB, dst, src, offset))

    def map_value(self, dst: int, map_fd: int) -> None:
        """Address of the first value of an array map (BPF_PSEUDO_MAP_VALUE): no lookup at run time."""
        self._code.append(_Instruction(0x18, dst, PSEUDO_MAP_VALUE, immediate=map_fd))
        self._code.append(_Instruction(0x00))

    def map_pointer(self, dst: int, map_fd: int) -> None:
        """The map itself (BPF_PSEUDO_MAP_FD), as helpers take it."""
        self._code.append(_Instruction(0x18, dst, PSEUDO_MAP_FD, immediate=map_fd))
        self._code.append(_Instruction(0x00))

    def jump(self, label: str) -> None:
        self._code.append(_Instruction(0x05, label=label))

    def jump_if(self, condition: str, dst: int, immediate: int, label: str) -> None:
        self._code.append(_Instruction(0x05 | _JUMPS[condition], dst, immediate=immediate, label=label))

    def jump_if_reg(self, condition: str, dst: int, src: int, label: str) -> None:
        self._code.append(_Instruction(0x0D | _JUMPS[condition], dst, src, label=label))

    def call(self, helper: int) -> None:
        self._code.append(_Instruction(0x85, immediate=helper))

    def exit(self) -> None:
        self._code.append(_Instruction(0x95))

    def assemble(self) -> bytes:
        return b"".join(self._encode(index, one) for index, one in enumerate(self._code))

    def _encode(self, index: int, one: _Instruction) -> bytes:
        offset = self._labels[one.label] - index - 1 if one.label else one.offset
        return struct.pack("<BBhi", one.opcode, one.dst | one.src << 4, offset, _signed32(one.immediate))


def _signed32(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
