"""The memory a gate's program shares with us: one word is its mode, the others say where to, how much, and what was counted."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dom0.dataplane import bpf_syscall
from dom0.dataplane.gate_program import SHARED_BYTES, Mode, Word


@dataclass(frozen=True)
class Bounds:
    """How much may wait for one interface."""

    packets: int
    bytes: int


@dataclass(frozen=True)
class GateCounts:
    """Frames, since the gate was attached."""

    passed: int
    blocked: int
    parked: int
    released: int
    diverted: int
    tunnelled: int
    overflow: int
    reflected: int
    taken_away: int = 0
    """How often somebody else had taken the gate off its tap: what came meanwhile is in no figure."""


class GateMemory:
    def __init__(self, name: str, mode: Mode, bounds: Bounds) -> None:
        self.map_fd = bpf_syscall.create_shared_array(SHARED_BYTES, name)
        self._memory = bpf_syscall.map_shared_array(self.map_fd, SHARED_BYTES)
        self._words = memoryview(self._memory).cast("Q")
        self.mode = mode
        self.set(Word.MAX_PACKETS, bounds.packets)
        self.set(Word.MAX_BYTES, bounds.bytes)

    def set(self, word: Word, value: int) -> None:
        """One aligned 8-byte store into memory the program reads: atomic on every machine Linux runs eBPF on.

        (``struct.pack_into`` would clear the word first and write it byte by byte: mode PASS for an instant.)
        """
        self._words[word // 8] = value

    def get(self, word: Word) -> int:
        return self._words[word // 8]

    @property
    def mode(self) -> Mode:
        return Mode(self.get(Word.MODE))

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self.set(Word.MODE, mode)

    def counts(self) -> GateCounts:
        return GateCounts(
            passed=self.get(Word.PASSED),
            blocked=self.get(Word.BLOCKED),
            parked=self.get(Word.PARKED),
            released=self.get(Word.RELEASED),
            diverted=self.get(Word.DIVERTED),
            tunnelled=self.get(Word.TUNNELLED),
            overflow=self.get(Word.OVERFLOW),
            reflected=self.get(Word.REFLECTED),
        )

    def close_memory(self) -> None:
        """Ours; the program keeps its own hold on it."""
        self._words.release()
        self._memory.close()
        os.close(self.map_fd)
