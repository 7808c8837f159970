"""A way to let frames come in at a port of this host's switch, as if from outside, so that it sets up its flows."""

from __future__ import annotations

from collections.abc import Iterable

from dom0.dataplane import wire
from dom0.dataplane.gate_program import SETUP
from dom0.dataplane.park import Park

_RING_PACKETS = 16
"""Nothing is ever read from it."""


class SetupPort:
    """Its frames carry the mark :data:`SETUP`, and end at the gate of the guest that they are for."""

    def __init__(self, name: str, mtu: int) -> None:
        self._device = Park(name, _RING_PACKETS, mtu, gated=False)

    def send(self, port: str, frames: Iterable[bytes]) -> None:
        """``frames``, from their Ethernet header on, come in at ``port``. OSError if there is no such device, or it is down."""
        wire.attach(self._device.name, port, ingress=True, mark=SETUP)
        for frame in frames:
            self._device.inject(frame)

    def close(self) -> None:
        self._device.close()
