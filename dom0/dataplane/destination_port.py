"""A guest's interface on the host it comes to: its tap is the hold queue; what arrives directly waits for what comes by the tunnel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dom0.dataplane import classifier, names, netdev, pump, ring, tunnel, wire
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate import Gate, GateCounts
from dom0.dataplane.gate_program import MARK, Mode, Word
from dom0.dataplane.listener import Listener, group_filter, source_filter
from dom0.dataplane.park import Park
from dom0.dataplane.sender import Sender
from dom0.dataplane.source_port import PortSettings


@dataclass(frozen=True)
class Opened:
    """``direct`` frames had waited for the tunnel to run empty; ``twice`` came both ways and were delivered once."""

    direct: int
    twice: int
    missing: int


class DestinationPort:
    """``settings.tap`` is the incoming guest's tap on this host. ``stretched``: its LAN is not here, the tunnel is its only wire."""

    def __init__(self, settings: PortSettings, stretched: bool) -> None:
        self.settings = settings
        self.stretched = stretched
        mtu = netdev.get_mtu(settings.tap)
        self.tunnel = names.tunnel_name(settings.vni)
        self._queue_length = netdev.get_queue_length(settings.tap)
        self._park = Park(names.park_name(settings.vni), settings.bounds.packets, mtu)
        self._inject_through_park()
        self.gate = Gate(settings.tap, self._park.ifindex, 0, settings.bounds, Mode.BLOCK)
        self.gate.set(Word.BOUNDED, 1)
        self._empty_tap()
        self._counters = netdev.TapCounters(settings.tap)
        self._gone_before = self._gone()
        tunnel.create(self.tunnel, settings.vni, settings.local, settings.remote, mtu)
        self.gate.attach_exit(self.tunnel, netdev.index_of(settings.tap), settings.mac)
        if stretched:
            self._wire_guest()
        self.marker = Listener(self.tunnel, source_filter(settings.mac))
        self._groups = Listener(self.tunnel, group_filter())
        self._to_tap = Sender(settings.tap, MARK)

    def _inject_through_park(self) -> None:
        """What we write to the park comes in at the guest's port, as if the guest had sent it."""
        wire.attach(self._park.name, self.settings.tap, ingress=True)

    def _wire_guest(self) -> None:
        wire.attach(self.settings.tap, self.tunnel, ingress=False)

    def _empty_tap(self) -> None:
        """What was flooded here before the gate was up also reached the source: drop it (a ring of length 0 keeps nothing)."""
        netdev.set_queue_length(self.settings.tap, 0)
        netdev.set_queue_length(self.settings.tap, self.settings.bounds.packets)

    def expect(self) -> None:
        """The guest is about to run here: from now on what arrives directly waits. Call before it resumes."""
        self._groups.drain()
        if not self.stretched:
            self.gate.mode = Mode.HOLD

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
        skipped = _Once(by_tunnel)
        self.gate.mode = Mode.CLOSE
        pumped = pump.empty(self.gate, self._park, self._to_tap, skipped)
        self.gate.mode = Mode.PASS
        return Opened(pumped.sent, pumped.skipped, pumped.missing)

    def counts(self) -> GateCounts:
        return self.gate.counts()

    def close(self, keep_wire: bool = False) -> None:
        """Everything of ours goes, but for the tunnel that is a stretched guest's only wire (``keep_wire``)."""
        if keep_wire:
            # what comes round through the old LAN is the guest's only news of it from now on: nothing is filtered, or past the gate
            wire.attach(self.tunnel, self.settings.tap, ingress=False)
        if netdev.exists(self.settings.tap):
            self._shorten_queue()
        if keep_wire:
            self.gate.detach_tap()
        else:
            self.gate.close()
            if self.stretched:
                classifier.detach(self.settings.tap, Direction.INGRESS)
        for part in (self.marker, self._groups, self._to_tap, self._park, self._counters):
            part.close()
        if not keep_wire:
            tunnel.delete(self.tunnel)

    def _shorten_queue(self) -> None:
        """The tap's queue as it was, unless more than that still waits for a guest that runs."""
        if self.gate.get(Word.BOUNDED):  # it has never run here, and nothing is for it any more
            self.gate.mode = Mode.BLOCK
            netdev.set_queue_length(self.settings.tap, self._queue_length)
        else:
            ring.shorten(self.gate, self._park, self._to_tap, self._queue_length, self._waiting)

    def _gone(self) -> int:
        return self._counters.taken() + self._counters.dropped()

    def _waiting(self) -> int:
        """Frames in the tap that the guest's hypervisor has not read."""
        return self.gate.entered() - (self._gone() - self._gone_before)


class _Once:
    """True for each frame of ``seen``, once: it has come by the tunnel already."""

    def __init__(self, seen: Counter[bytes]) -> None:
        self._seen = seen

    def __call__(self, frame: bytes) -> bool:
        if not frame[0] & 1 or self._seen[frame] <= 0:
            return False
        self._seen[frame] -= 1
        return True
