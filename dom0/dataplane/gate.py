"""One gate on one tap: attach, set its mode, read what it counted. What the modes mean is in :mod:`dom0.dataplane.gate_program`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dom0.dataplane import bpf_syscall, classifier
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate_program import SHARED_BYTES, Mode, Word, exit_code, gate_code


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


class Gate:
    """Decides what happens to every frame for the guest behind ``tap``. It starts in ``mode`` and works without us from then on."""

    def __init__(self, tap: str, park_ifindex: int, exit_ifindex: int, bounds: Bounds, mode: Mode) -> None:
        self.tap = tap
        self._map = bpf_syscall.create_shared_array(SHARED_BYTES, "vmnet_gate")
        self._memory = bpf_syscall.map_shared_array(self._map, SHARED_BYTES)
        self._words = memoryview(self._memory).cast("Q")
        for word, value in (
            (Word.MODE, mode),
            (Word.PARK_IFINDEX, park_ifindex),
            (Word.EXIT_IFINDEX, exit_ifindex),
            (Word.MAX_PACKETS, bounds.packets),
            (Word.MAX_BYTES, bounds.bytes),
        ):
            self.set(word, value)
        self._attach(tap, Direction.EGRESS, gate_code(self._map))
        self._exit: str | None = None

    def _attach(self, device: str, direction: Direction, code: bytes) -> None:
        program = bpf_syscall.load_classifier(code, "vmnet_gate")
        try:
            classifier.attach(device, direction, program, "vmnet")
        finally:
            os.close(program)  # the filter keeps it

    def attach_exit(self, tunnel: str, tap_ifindex: int, guest_mac: bytes) -> None:
        """What leaves ``tunnel`` on this host goes to the guest's tap, past this gate."""
        self._attach(tunnel, Direction.INGRESS, exit_code(self._map, tap_ifindex, guest_mac))
        self._exit = tunnel

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

    def entered(self) -> int:
        """Frames let through to the tap, from either side."""
        return self.get(Word.PASSED) + self.get(Word.TUNNELLED)

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

    def detach_tap(self) -> None:
        """Off the tap: everything passes. What the tunnel brings is still handed over."""
        classifier.detach(self.tap, Direction.EGRESS)
        self._words.release()
        self._memory.close()
        os.close(self._map)

    def close(self) -> None:
        """Off the tap and off the tunnel."""
        if self._exit is not None:
            classifier.detach(self._exit, Direction.INGRESS)
        self.detach_tap()
