"""A port that takes over what is for a guest when its tap has gone, and packets still come by the old way: where a fabric is told.

It is in the guest's bridge all along. As long as the tap is there, the bridge sends what is for the guest to it alone; when it knows
nobody by that address any more it floods, and what the stand-in gets of that goes the way that the tap's gate says (they share their
memory). All else that is flooded ends here.
"""

from __future__ import annotations

from dom0.dataplane import classifier, names, netdev
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate import Gate
from dom0.dataplane.gate_program import stand_in_code
from dom0.dataplane.park import Park
from dom0.dataplane.port_settings import PortSettings

_RING_PACKETS = 16
"""Nothing is ever read from it."""


class StandIn:
    """Not in a bridge yet. ``gate`` is the tap's."""

    def __init__(self, gate: Gate, settings: PortSettings) -> None:
        self.name = names.stand_in_name(settings.vni)
        self._device = Park(self.name, _RING_PACKETS, netdev.get_mtu(gate.tap))
        try:
            code = stand_in_code(gate.map_fd, settings.mac)
            classifier.load_and_attach(self.name, Direction.EGRESS, code, "vmnet_stand_in")
        except OSError:
            self._device.close()
            raise

    def close(self) -> None:
        """A Linux bridge loses its port with it; an Open vSwitch has to be told."""
        self._device.close()
