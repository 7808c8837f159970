"""One gate on one tap: attach, set its mode, read what it counted. What the modes mean is in :mod:`dom0.dataplane.gate_program`."""

from __future__ import annotations

import threading
from dataclasses import replace

from dom0.dataplane import classifier, netdev
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate_memory import Bounds, GateCounts, GateMemory
from dom0.dataplane.gate_program import Mode, Word, exit_code, gate_code

__all__ = ["Bounds", "Gate", "GateCounts"]


class Gate(GateMemory):
    """Decides what happens to every frame for the guest behind ``tap``. It starts in ``mode`` and works without us from then on."""

    def __init__(self, tap: str, park_ifindex: int, exit_ifindex: int, bounds: Bounds, mode: Mode) -> None:
        super().__init__("vmnet_gate", mode, bounds)
        self.tap = tap
        self.set(Word.PARK_IFINDEX, park_ifindex)
        self.set(Word.EXIT_IFINDEX, exit_ifindex)
        self._attach()
        self._taken_away, self._off = 0, False
        self._changing = threading.Lock()
        self._exit: str | None = None

    def _attach(self) -> None:
        classifier.load_and_attach(self.tap, Direction.EGRESS, gate_code(self.map_fd), "vmnet_gate")

    def verify(self) -> None:
        """On the tap again, and counted, if somebody has taken it away: who removes a qdisc removes what is attached to it.

        Open vSwitch does so when its policing of a port changes. By tcx it cannot happen. Nothing is done where the tap has gone.
        The kernel's lock of all devices is waited for: not to be called where a guest waits. From any thread.
        """
        with self._changing:
            if self._off or classifier.is_attached(self.tap, Direction.EGRESS):
                return
            try:
                self._attach()
            except OSError:
                if not netdev.exists(self.tap):
                    return
            self._taken_away += 1

    def attach_exit(self, tunnel: str, tap_ifindex: int, guest_mac: bytes) -> None:
        """What leaves ``tunnel`` on this host goes to the guest's tap, past this gate."""
        code = exit_code(self.map_fd, tap_ifindex, guest_mac)
        classifier.load_and_attach(tunnel, Direction.INGRESS, code, "vmnet_gate")
        self._exit = tunnel

    def counts(self) -> GateCounts:
        return replace(super().counts(), taken_away=self._taken_away)

    def entered(self) -> int:
        """Frames let through to the tap, from either side."""
        return self.get(Word.PASSED) + self.get(Word.TUNNELLED)

    def detach_tap(self) -> None:
        """Off the tap: everything passes. What the tunnel brings is still handed over."""
        with self._changing:
            self._off = True
            classifier.detach(self.tap, Direction.EGRESS)
        self.close_memory()

    def close(self) -> None:
        """Off the tap and off the tunnel."""
        if self._exit is not None:
            classifier.detach(self._exit, Direction.INGRESS)
        self.detach_tap()
