"""A router's link on the host it leaves: data goes on being forwarded here until the other host's data plane takes it over."""

from __future__ import annotations

from dom0.dataplane import names, pump, tunnel, wire
from dom0.dataplane.announce import announcements
from dom0.dataplane.gate_program import Mode, Word
from dom0.dataplane.park import NO_OFFLOAD, Park
from dom0.dataplane.parts import Parts
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.sender import Sender
from dom0.router.port import Address, RouterPort


class LeavingLink:
    """``settings.vni`` is the link's own tunnel. Everything goes on until :meth:`hold`."""

    def __init__(self, port: RouterPort, settings: PortSettings) -> None:
        self.port, self.settings = port, settings
        self.tunnel = names.tunnel_name(settings.vni)
        self.ordered = True
        self._before = 0
        self._parts = Parts()
        mtu = port.interface.mtu
        index = tunnel.create(self.tunnel, settings.vni, settings.local, settings.remote, mtu)
        port.set(Word.EXIT_IFINDEX, index)
        with self._parts.closed_on_failure():
            self._park = self._parts.add(Park(names.park_name(settings.vni), settings.bounds.packets, mtu))
            self._to_tunnel = self._parts.add(Sender(self.tunnel))
        port.set(Word.PARK_IFINDEX, self._park.ifindex)

    def hold(self) -> None:
        """New data waits, for as long as what came before is still on its way through the namespace: it would be overtaken."""
        self._before = self._followed()
        self.port.mode = Mode.HOLD

    def divert(self) -> None:
        """From now on the other host forwards what still comes here, and what has waited, in order.

        Only when nothing is under way here any more may it announce itself: two hosts that send from one MAC make the fabric flap.
        """
        _pumped, self.ordered = pump.empty_in_peace(self.port, self._park, self._to_tunnel, Mode.DIVERT)

    def mute(self) -> None:
        """Nothing that the namespace may still have to say (an ARP request, say) calls the link back here."""
        self.port.talk = False

    @property
    def bridge_port(self) -> str:
        return self.port.name

    def followed_count(self) -> int:
        """Frames that came here after :meth:`hold` and went into the tunnel."""
        return self._followed() - self._before

    def _followed(self) -> int:
        return self.port.get(Word.RELEASED) + self.port.get(Word.DIVERTED)

    def mark(self, frame: bytes) -> None:
        """Into the tunnel, behind everything that has come."""
        self._to_tunnel.send(NO_OFFLOAD + frame)

    def stop_groups(self) -> None:
        """Broadcast and multicast go into the tunnel another way now (the old bridge's port)."""
        self.port.set(Word.DROP_GROUP, 1)

    def reconnect(self) -> None:
        """The router stays: what the other host sends back comes in, and what leaves the namespace gets out."""
        wire.attach(self.tunnel, self.port.name, ingress=False)
        self.port.set(Word.DROP_GROUP, 0)
        self.port.talk = True

    def take_back(self) -> None:
        """Data is forwarded here again: once every link that it may leave by is reconnected."""
        self.port.mode = Mode.PASS

    def announce(self, addresses: list[Address]) -> None:
        """The fabric and the neighbours learn that the link is here again: once the other host is silent."""
        wire.attach(self._park.name, self.port.name, ingress=True)
        for frame in announcements(self.settings.mac, addresses):
            self._park.inject(frame)

    def close(self, keep_tunnel: bool = False) -> None:
        self._parts.close()
        if not keep_tunnel:
            self.port.set(Word.EXIT_IFINDEX, 0)
            tunnel.delete(self.tunnel)
