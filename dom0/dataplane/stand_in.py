"""A port that takes over what is for a guest when its tap has gone, and packets still come by the old way: where a fabric is told.

It is in the guest's bridge all along, and what it gets for the guest goes the way that the tap's gate says (they share their memory).
A bridge that knows nobody by that address floods, so it gets that. But the guest's announcements from its new host come here by the
uplink, and a Linux bridge that has learned from them drops what comes the same way: so where the guest runs, everything for it goes by
the stand-in (:meth:`StandIn.stand_before`, :func:`dom0.bridges.pin`), and nothing has to change when the tap goes. All else that is
flooded ends here.
"""

from __future__ import annotations

from dom0.dataplane import classifier, names, netdev
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate import Gate
from dom0.dataplane.gate_program import Word, stand_in_code
from dom0.dataplane.park import Park
from dom0.dataplane.port_settings import PortSettings

_RING_PACKETS = 16
"""Nothing is ever read from it."""


class StandIn:
    """Not in a bridge yet. ``gate`` is the tap's."""

    def __init__(self, gate: Gate, settings: PortSettings) -> None:
        self._gate = gate
        self.name = names.stand_in_name(settings.vni)
        self._device = Park(self.name, _RING_PACKETS, netdev.get_mtu(gate.tap), gated=False)
        try:
            code = stand_in_code(gate.map_fd, settings.mac)
            classifier.load_and_attach(self.name, Direction.EGRESS, code, "vmnet_stand_in")
        except OSError:
            self._device.close()
            raise

    def stand_before(self) -> None:
        """What comes here for the guest while the gate lets it pass gets to its tap: the bridge will send it here. OSError."""
        self._gate.set(Word.TAP_IFINDEX, netdev.index_of(self._gate.tap))

    def close(self) -> None:
        """A Linux bridge loses its port with it; an Open vSwitch has to be told."""
        self._device.close()
