"""Holds what a guest sends from its new host, until what it sent from its old one has got through.

A program on the tap's ingress with a gate's memory and modes, and a park of its own. What is released comes in at the tap again, with
a mark that lets it pass. The guest never notices: it has sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dom0.dataplane import classifier, names, netdev, pump, wire
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate_memory import GateMemory
from dom0.dataplane.gate_program import SAID, Mode, Word, outgoing_code
from dom0.dataplane.park import Park
from dom0.dataplane.parts import Parts
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.upcall_order import UpcallOrder

_ROOM: Final = 65_536
_MOST: Final = 0.5
"""Of the room. Then it is better to let go: what does not fit is lost, what goes early may overtake."""


class OutgoingGate:
    """On the tap of a guest that does not run here yet; everything passes until :meth:`hold`."""

    def __init__(self, tap: str, settings: PortSettings) -> None:
        self._tap = tap
        room = min(settings.bounds.packets, _ROOM)
        self._most = int(room * _MOST)
        self._memory = GateMemory("vmnet_out", Mode.PASS, replace(settings.bounds, packets=room))
        self._parts = Parts()
        with self._parts.closed_on_failure():
            self._park = self._parts.add(
                Park(names.outgoing_park_name(settings.vni), room, netdev.get_mtu(tap))
            )
            self._memory.set(Word.PARK_IFINDEX, self._park.ifindex)
            wire.attach(self._park.name, tap, ingress=True, mark=SAID)
            classifier.load_and_attach(
                tap, Direction.INGRESS, outgoing_code(self._memory.map_fd), "vmnet_outgoing"
            )

    def hold(self) -> None:
        """One store."""
        self._memory.mode = Mode.HOLD

    @property
    def full(self) -> bool:
        """No more should wait."""
        return self._memory.get(Word.PARKED) - self._memory.get(Word.RELEASED) > self._most

    @property
    def devices(self) -> tuple[str, str]:
        """Where the guest's frames are before a switch has them."""
        return self._tap, self._park.name

    def send(self, frame: bytes) -> None:
        """``frame``, with its offload header, goes past the gate: it has waited here."""
        self._park.send(frame)

    def release(self, by: UpcallOrder | None = None) -> tuple[int, bool]:
        """What waits goes, in order, then everything that is sent. Blocks for milliseconds. ``by``: hands on to :meth:`send`.

        How many frames were lost, ever; and False if order is not certain.
        """
        first = pump.Pumped(0, 0, 0)
        if by is not None:
            first = pump.empty(self._memory, self._park, by, parked=self._memory.get(Word.PARKED))
            by.settle()
        pumped, ordered = pump.empty_in_peace(self._memory, self._park, by or self._park, Mode.PASS)
        return first.missing + pumped.missing + self._memory.get(Word.OVERFLOW), ordered

    def close(self) -> None:
        """Off the tap. What still waits is lost: :meth:`release` first."""
        classifier.detach(self._tap, Direction.INGRESS)
        self._parts.close()
        self._memory.close_memory()
