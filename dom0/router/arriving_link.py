"""A router's link on the host it comes to: what the tunnel brings is forwarded first, then what arrives directly."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

from dom0.dataplane import classifier, names, netdev, pump, tunnel, wire
from dom0.dataplane.announce import announcements, here_only
from dom0.dataplane.classifier import Direction
from dom0.dataplane.destination_port import Once, Opened
from dom0.dataplane.gate_program import MARK, Mode, Word, exit_code
from dom0.dataplane.listener import Listener, group_filter, source_filter
from dom0.dataplane.park import Park
from dom0.dataplane.parts import Parts
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.sender import Sender
from dom0.router.port import Address, RouterPort


class ArrivingLink:
    """``port`` is silent and in mode BLOCK. ``stretched``: the link's LAN is not here, the tunnel stays and is the link."""

    def __init__(self, port: RouterPort, settings: PortSettings, stretched: bool) -> None:
        self.port, self.settings, self.stretched = port, settings, stretched
        self.tunnel = names.tunnel_name(settings.vni)
        self.opened: Opened | None = None
        self.ordered = True
        self._announced: list[bytes] = []
        self._parts = Parts()
        with self._parts.closed_on_failure():
            self._make(settings)

    def _make(self, settings: PortSettings) -> None:
        mtu = self.port.interface.mtu
        tunnel.create(self.tunnel, settings.vni, settings.local, settings.remote, mtu)
        if self.stretched:
            return
        self._park = self._parts.add(Park(names.park_name(settings.vni), settings.bounds.packets, mtu))
        self.port.set(Word.PARK_IFINDEX, self._park.ifindex)
        self.port.set(Word.EXIT_IFINDEX, 0)
        wire.attach(self._park.name, self.port.name, ingress=True)
        self._to_port = self._parts.add(Sender(self.port.name, MARK))
        self.marker = self._parts.add(Listener(self.tunnel, source_filter(settings.mac)))
        self._groups = self._parts.add(Listener(self.tunnel, group_filter()))
        code = exit_code(self.port.map_fd, self.port.ifindex, settings.mac)
        classifier.load_and_attach(self.tunnel, Direction.INGRESS, code, "vmnet_exit")

    def expect(self, addresses: list[Address]) -> None:
        """From now on what the tunnel brings is forwarded, and what arrives directly waits. Before the other host diverts."""
        self._announced = announcements(self.settings.mac, addresses)
        self.port.talk = True
        if self.stretched:
            self.port.mode = Mode.PASS
            return
        self._groups.drain()
        self.port.mode = Mode.HOLD

    def announce(self) -> None:
        """Not before the other host is silent. An Open vSwitch is told first: its flows follow its addresses some ms late."""
        if not netdev.is_linux_bridge_port(self.port.name):
            self._park.inject(here_only(self.settings.mac))
        for frame in self._announced:
            self._park.inject(frame)

    def open(self) -> None:
        """The old path is empty, or silent for too long: let in what waited, then everything that arrives. Again: nothing."""
        if self.stretched or self.opened is not None:
            return
        skipped = Once(Counter(self._groups.drain()))
        self.port.set(Word.DROP_GROUP, 1)
        pumped, self.ordered = pump.empty_in_peace(self.port, self._park, self._to_port, Mode.PASS, skipped)
        self.opened = Opened(pumped.sent, pumped.skipped, pumped.missing)

    def go_back(self) -> None:
        """The router stays where it was: what arrives here is sent there, what waits goes first. Then :meth:`mute`."""
        if self.stretched:
            self.port.mode = Mode.BLOCK
            return
        self.port.set(Word.EXIT_IFINDEX, netdev.index_of(self.tunnel))
        with closing(Sender(self.tunnel)) as to_tunnel:
            self.port.mode = Mode.CLOSE
            pump.empty(self.port, self._park, to_tunnel)
        self.port.mode = Mode.DIVERT

    def mute(self) -> None:
        """What was under way in the namespace has left it: nothing of it calls the link here any more."""
        self.port.talk = False

    def close(self) -> None:
        """The tunnel goes too, unless it is the link."""
        self._parts.close()
        if self.stretched:
            return
        self.port.set(Word.DROP_GROUP, 0)
        self.port.set(Word.EXIT_IFINDEX, 0)
        tunnel.delete(self.tunnel)
