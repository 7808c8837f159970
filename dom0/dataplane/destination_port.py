"""A guest's interface on the host it comes to: its tap is the hold queue; what arrives directly waits for what comes by the tunnel."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from controller_bridge import setup_frame
from dom0.dataplane import classifier, names, netdev, pump, ring, steering, tunnel, wire
from dom0.dataplane.announce import here_afresh, here_only, nobody, spare_frame
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate import Gate, GateCounts
from dom0.dataplane.gate_program import MARK, SAID, Mode, Word
from dom0.dataplane.kernel_limits import SPARE_PACKETS
from dom0.dataplane.listener import Listener, group_filter, source_filter
from dom0.dataplane.outgoing import OutgoingGate
from dom0.dataplane.park import NO_OFFLOAD, Park
from dom0.dataplane.parts import Parts
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.sender import Sender
from dom0.dataplane.setup_port import SetupPort
from dom0.dataplane.upcall_order import Leaving, UpcallOrder

_LOG = logging.getLogger(__name__)
_USUAL_MTU = 1500


@dataclass(frozen=True)
class Opened:
    """``direct`` frames had waited for the tunnel to run empty; ``twice`` came both ways and were delivered once."""

    direct: int
    twice: int
    missing: int


class DestinationPort:
    """The way in for one interface of an incoming guest. ``stretched``: its LAN is not here, the tunnel is its only wire.

    ``routed``: a router's port is in the switch in place of its tap, and says itself where it is.

    Made before the guest's tap is; then :meth:`attach`, then :meth:`make_room`.
    """

    def __init__(self, settings: PortSettings, stretched: bool, routed: bool = False) -> None:
        self.settings = settings
        self.stretched = stretched
        self.routed = routed
        self.tunnel = names.tunnel_name(settings.vni)
        self.tap = ""
        """Empty until :meth:`attach`."""
        self.outgoing_lost = 0
        """Frames of the guest's own, as known since :meth:`let_go_outgoing`."""
        self._outgoing: OutgoingGate | None = None
        self._setup: SetupPort | None = None
        self._switch_ports: Collection[str] | None = None
        """Of an Open vSwitch in the kernel, if the guest's own order there is looked after."""
        self._upcalls: UpcallOrder | None = None
        self._hypervisor: int | None = None
        """Its process, if all goes by the first of the tap's queues, or did until the hypervisor took that away."""
        self.unsteered = False
        """The guest's hypervisor may lose a frame of each of its tap's further queues."""
        self._parts = Parts()
        with self._parts.closed_on_failure():
            self._make(settings)

    def _make(self, settings: PortSettings) -> None:
        self._park = self._parts.add(Park(names.park_name(settings.vni), settings.bounds.packets, _USUAL_MTU))
        tunnel.create(self.tunnel, settings.vni, settings.local, settings.remote, _USUAL_MTU)
        self.marker = self._parts.add(Listener(self.tunnel, source_filter(settings.mac)))
        self._groups = self._parts.add(Listener(self.tunnel, group_filter()))

    def attach(self, tap: str) -> None:
        """From now on nothing gets into ``tap`` but what the tunnel brings."""
        mtu = netdev.get_mtu(tap)
        for device in (self._park.name, self.tunnel):
            netdev.set_mtu(device, mtu)
        self._queue_length = netdev.get_queue_length(tap)
        self._counters = self._parts.add(netdev.TapCounters(tap))
        self._gone_before = 0
        self._to_tap = self._parts.add(Sender(tap, MARK))
        wire.attach(self._park.name, tap, ingress=True)  # announcements: as if the guest had sent them
        self.gate = Gate(tap, self._park.ifindex, 0, self.settings.bounds, Mode.BLOCK)
        self.tap = tap
        self.gate.set(Word.BOUNDED, 1)
        self.gate.attach_exit(self.tunnel, netdev.index_of(tap), self.settings.mac)
        if self.stretched:
            wire.attach(tap, self.tunnel, ingress=False)

    def make_room(self) -> None:
        """Make the tap's ring as long as what may wait, some ten ms; to be done before :meth:`expect`.

        What was flooded into it before the gate was there has also reached the source: a ring of length 0 keeps nothing.

        The first frame is one that nobody misses.
        """
        netdev.set_queue_length(self.tap, 0)
        netdev.set_queue_length(self.tap, self.settings.bounds.packets + SPARE_PACKETS)
        self._steer()
        self._gone_before = self._gone() + self._send_spare()

    def _steer(self) -> None:
        """Of several queues the first alone has frames from now on: the one that has the spare frame."""
        if not netdev.may_have_queues(self.tap):
            return
        try:
            self._hypervisor = steering.by_first_queue(self.tap, self._hypervisor)
            self.unsteered = False
        except OSError as error:
            _LOG.warning("%s: not all goes by its first queue: %s", self.tap, error)
            self.unsteered = True

    def _send_spare(self) -> int:
        """How many frames of ours are in the tap, or have been read, that are not counted as the guest's."""
        try:
            self._to_tap.send(NO_OFFLOAD + spare_frame())
        except OSError:  # the tap is down: nothing gets in
            return 0
        for word in (Word.TUNNELLED, Word.TUNNELLED_BYTES):
            self.gate.set(word, 0)
        return 1

    def allow_setup(self) -> None:
        """From now on setup frames can be sent; after :meth:`attach`. OSError if the kernel refuses."""
        name = names.setup_port_name(self.settings.vni)
        self._setup = self._parts.add(SetupPort(name, netdev.get_mtu(self.tap)))

    def send_setup(self, port: str, frames: Sequence[bytes]) -> None:
        """``frames`` for the guest come in at ``port`` of this host's switch, and end at the gate. OSError: there is no such port."""
        if self._setup is not None:
            self._setup.send(port, frames)

    @property
    def set_up(self) -> int:
        """Setup frames that the switch has brought to the gate, ever."""
        return self.gate.get(Word.SET_UP)

    def curb(self) -> None:
        """From now on what the guest sends can be made to wait; before it runs. OSError if the kernel refuses."""
        self._outgoing = OutgoingGate(self.tap, self.settings)
        wire.attach(self._park.name, self.tap, ingress=True, mark=SAID)  # announcements do not wait

    def hold_outgoing(self) -> None:
        """What the guest sends waits, after :meth:`curb`."""
        if self._outgoing is not None:
            self._outgoing.hold()

    def keep_upcall_order(self, switch_ports: Collection[str]) -> None:
        """What is let go keeps its order in an Open vSwitch of the kernel, with these ports among others."""
        self._switch_ports = switch_ports

    def _upcall_order(self, gate: OutgoingGate) -> UpcallOrder | None:
        """None if that was not asked for, or the kernel refuses."""
        if self._switch_ports is None:
            return None
        try:
            leaving = Leaving(self.settings.mac, (*gate.devices, self._park.name), self._switch_ports)
        except OSError:
            return None
        return UpcallOrder(gate, self._parts.add(leaving))

    @property
    def own_unsure(self) -> bool:
        """It is worth to ask :meth:`own_overtaken` a second later."""
        return self._upcalls is not None and self._upcalls.unsure

    def own_overtaken(self) -> bool:
        """Whether something that was let go may have been overtaken in the switch, or nobody has looked. Blocks; ask once."""
        if self._upcalls is None:
            return self._switch_ports is not None
        overtaken = self._upcalls.overtaken()
        self._upcalls.close()
        return overtaken

    @property
    def outgoing_full(self) -> bool:
        """No more of it should wait."""
        return self._outgoing is not None and self._outgoing.full

    def let_go_outgoing(self) -> bool:
        """It goes; False if that may not have been in order."""
        if self._outgoing is None:
            return True
        self._upcalls = self._upcall_order(self._outgoing)
        self.outgoing_lost, ordered = self._outgoing.release(self._upcalls)
        return ordered

    def expect(self) -> None:
        """The guest is about to run here: from now on what arrives directly waits. Call before it resumes."""
        self._groups.drain()
        if not self.stretched:
            self.gate.mode = Mode.HOLD
            if self.on_ovs:
                self.tell_switch()
        self._steer()

    @property
    def bridged(self) -> bool:
        """A switch of this host forwards to the tap: no tunnel alone, and no router's namespace."""
        return not self.stretched and not self.routed

    @property
    def on_ovs(self) -> bool:
        """That switch is an Open vSwitch."""
        return self.bridged and not netdev.is_linux_bridge_port(self.tap)

    def tell_switch(self) -> None:
        """Let this host's switch, and it alone, know that the guest is at our port.

        What comes from outside for a guest that is outside is dropped: it was here before, or somebody has flooded what it sent. The
        cache of flows of an Open vSwitch follows its table of addresses some milliseconds late; and its table what flows have carried:
        when it counts that, as when it has just learned something, it takes the guest to be outside again. So tell it again.
        """
        mac = self.settings.mac
        for frame in here_afresh(mac, nobody()) if self.on_ovs else (here_only(mac),):
            self._park.inject(frame)

    def resumed(self) -> None:
        """The guest reads its tap again: what comes by the tunnel no longer waits."""
        self.gate.set(Word.BOUNDED, 0)

    def announce(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._park.inject(frame)

    def open(self) -> Opened:
        """The old path is empty: let in what waited, in order, then everything that arrives directly."""
        by_tunnel = Counter(
            self._groups.drain()
        )  # first: what is heard and dropped as well would come neither way
        self.gate.set(Word.DROP_GROUP, 1)
        skipped = Once(by_tunnel, self.settings.mac)
        self.gate.mode = Mode.CLOSE
        pumped = pump.empty(self.gate, self._park, self._to_tap, skipped)
        self.gate.mode = Mode.PASS
        self.gate.verify()
        return Opened(pumped.sent, pumped.skipped - skipped.own, pumped.missing)

    @property
    def keeps(self) -> bool:
        """Frames that came directly wait here."""
        return bool(self.tap) and self.gate.get(Word.PARKED) > self.gate.get(Word.RELEASED)

    def go_back(self) -> int:
        """The guest stays where it was: what has waited here goes there, and so does what still comes. How many frames so far.

        Broadcast and multicast have reached it there.
        """
        if self.stretched or not self.tap:
            return 0
        self.gate.set(Word.DROP_GROUP, 1)
        self.gate.set(Word.EXIT_IFINDEX, netdev.index_of(self.tunnel))
        with closing(Sender(self.tunnel)) as to_tunnel:
            self.gate.mode = Mode.CLOSE
            sent = pump.empty(self.gate, self._park, to_tunnel, lambda frame: bool(frame[0] & 1)).sent
        self.gate.mode = Mode.DIVERT
        return sent + self.gate.get(Word.DIVERTED)

    @property
    def tunnel_received(self) -> int:
        """Frames that have come out of the tunnel since :meth:`attach`."""
        return self.gate.get(Word.EXITED) if self.tap else 0

    def counts(self) -> GateCounts:
        return self.gate.counts()

    def close(self, keep_wire: bool = False) -> None:
        """Everything of ours goes, but for the tunnel that is a stretched guest's only wire (``keep_wire``)."""
        if self._outgoing is not None:
            self._outgoing.close()
        if self.tap:
            self._detach(keep_wire)
        self._parts.close()
        if not keep_wire:
            tunnel.delete(self.tunnel)

    def _detach(self, keep_wire: bool) -> None:
        if keep_wire:
            # what comes round through the old LAN is the guest's only news of it from now on: nothing is filtered, or past the gate
            wire.attach(self.tunnel, self.tap, ingress=False)
        if netdev.exists(self.tap):
            self._shorten_queue()
        if keep_wire:
            self.gate.detach_tap()
            return
        self.gate.close()
        if self.stretched:
            classifier.detach(self.tap, Direction.INGRESS)

    def _shorten_queue(self) -> None:
        """The tap's queue as it was, unless more than that still waits for a guest that runs."""
        if self.gate.get(Word.BOUNDED):  # it has never run here, and nothing is for it any more
            self.gate.mode = Mode.BLOCK
            netdev.set_queue_length(self.tap, self._queue_length)
        else:
            ring.shorten(self.gate, self._park, self._to_tap, self._queue_length, self._waiting)
            self._steer_no_more()

    def _steer_no_more(self) -> None:
        """The hypervisor may have gone, and the tap with it."""
        if self._hypervisor is not None:
            with suppress(OSError), ring.emptied(self.gate, self._park, self._to_tap, self._waiting):
                steering.as_usual(self.tap, self._hypervisor)

    def _gone(self) -> int:
        return self._counters.taken() + self._counters.dropped()

    def _waiting(self) -> int:
        """Frames in the tap that the guest's hypervisor has not read."""
        return self.gate.entered() - (self._gone() - self._gone_before)


class Once:
    """True for each frame of ``seen``, once: it has come by the tunnel already. And for all from ``mac``, the guest's own, and all
    from :data:`controller_bridge.setup_frame.SOURCE`."""

    def __init__(self, seen: Counter[bytes], mac: bytes = b"") -> None:
        self._seen, self._ours = seen, (mac, setup_frame.SOURCE)
        self.own = 0
        """Frames of the guest's own, and those that had a fabric's switches set up their flows."""

    def __call__(self, frame: bytes) -> bool:
        if frame[6:12] in self._ours:
            self.own += 1
            return True
        if not frame[0] & 1 or self._seen[frame] <= 0:
            return False
        self._seen[frame] -= 1
        return True
