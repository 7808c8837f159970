"""When all that a station has sent from where it was has got through, however long switches keep packets. Pure.

Its last frame is shown to us by the first switch, behind all others that came by that port. From there hellos (LLDP) follow over
every link that is on a shortest way away from that switch, each behind what the switch has sent there; a switch sends its own on when
it has those that come to it. So each is behind all of the station's, in the same queues. When every switch has had them all, nothing
of the station's is in any. A hello may be lost: it is sent again until it has come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from controller_bridge.topology import Place, Topology

AGAIN_MS: Final = 20
GIVE_UP_MS: Final = 1000
"""Nobody waits for it any more."""
MOST_OF_ONE: Final = 4
"""Frames of one station: its rehearsal, its last, and what else it makes up."""


@dataclass
class Sweep:
    """``frame`` came in at ``place``, and goes out to everybody at the end. Times in ms, of the hellos' clock."""

    place: Place
    frame: bytes
    begun_ms: int
    _onward: dict[str, dict[Place, Place]] = field(default_factory=dict)
    """By switch, ports that lead away from the first, each with the port at its other end."""
    _awaited: dict[str, set[Place]] = field(default_factory=dict)
    """By switch, ports at which a hello is to come."""
    _through_ms: dict[str, int] = field(default_factory=dict)
    """Switches that have them all, and since when."""

    def begin(self, topology: Topology) -> list[Place]:
        """Where hellos go out now."""
        distances = topology.distances(self.place.switch)
        for here, there in topology.beyond.items():
            if here.switch in distances and distances[here.switch] < distances[there.switch]:
                self._onward.setdefault(here.switch, {})[here] = there
                self._awaited.setdefault(there.switch, set()).add(there)
        return self._through(self.place.switch, self.begun_ms)

    def heard(self, sender: str, sent_ms: int, place: Place, now_ms: int) -> list[Place]:
        """A hello that ``sender`` sent came in at ``place``: where more go out now."""
        awaited = self._awaited.get(place.switch, set())
        if place not in awaited or sent_ms < self._through_ms.get(sender, now_ms + 1):
            return []
        awaited.discard(place)
        return [] if awaited else self._through(place.switch, now_ms)

    def unheard(self) -> list[Place]:
        """Where hellos have gone out and not come in yet."""
        return [
            here
            for switch in self._through_ms
            for here, there in self._onward.get(switch, {}).items()
            if there in self._awaited.get(there.switch, ())
        ]

    def _through(self, switch: str, now_ms: int) -> list[Place]:
        self._awaited.pop(switch, None)
        self._through_ms[switch] = now_ms
        return list(self._onward.get(switch, {}))

    @property
    def done(self) -> bool:
        return not self._awaited


@dataclass
class Sweeps:
    """All that are under way, by frame. ``next_ms``: when :meth:`again` is due, None if never."""

    next_ms: int | None = None
    _by_frame: dict[bytes, Sweep] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_frame)

    def begin(self, place: Place, frame: bytes, topology: Topology, now_ms: int) -> list[Place]:
        """Where hellos go out now. Of a frame whose sweep is under way: nowhere."""
        if frame in self._by_frame or sum(one[6:12] == frame[6:12] for one in self._by_frame) >= MOST_OF_ONE:
            return []
        sweep = self._by_frame[frame] = Sweep(place, frame, now_ms)
        if self.next_ms is None:
            self.next_ms = now_ms + AGAIN_MS
        return sweep.begin(topology)

    def heard(self, sender: str, sent_ms: int, place: Place, now_ms: int) -> list[Place]:
        """As :meth:`Sweep.heard`, of all."""
        return [port for one in self._by_frame.values() for port in one.heard(sender, sent_ms, place, now_ms)]

    def again(self, now_ms: int) -> list[Place]:
        """Where hellos go out once more now. One that takes too long is given up."""
        if self.next_ms is None or now_ms < self.next_ms:
            return []
        self._by_frame = {
            frame: one for frame, one in self._by_frame.items() if now_ms - one.begun_ms < GIVE_UP_MS
        }
        self.next_ms = now_ms + AGAIN_MS if self._by_frame else None
        return list(dict.fromkeys(port for one in self._by_frame.values() for port in one.unheard()))

    def take_done(self) -> list[Sweep]:
        """Those that have ended since the last time."""
        done = [one for one in self._by_frame.values() if one.done]
        for one in done:
            del self._by_frame[one.frame]
        return done
