"""When all that a station has sent from where it was has got through, however long switches keep packets. Pure.

Its last frame is shown to us by the first switch, behind all others that came by that port. From there hellos (LLDP) follow over
every link that is on a shortest way away from that switch, each behind what the switch has sent there; a switch sends its own on when
it has those that come to it. So each is behind all of the station's, in the same queues. When every switch has had them all, nothing
of the station's is in any.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controller_bridge.topology import Place, Topology


@dataclass
class Sweep:
    """``frame`` came in at ``place``, and goes out to everybody at the end. Times in ms, of the hellos' clock."""

    place: Place
    frame: bytes
    begun_ms: int
    _onward: dict[str, list[Place]] = field(default_factory=dict)
    """By switch, ports that lead away from the first."""
    _awaited: dict[str, set[Place]] = field(default_factory=dict)
    """By switch, ports at which a hello is to come."""
    _through_ms: dict[str, int] = field(default_factory=dict)
    """Switches that have them all, and since when."""

    def begin(self, topology: Topology) -> list[Place]:
        """Where hellos go out now."""
        distances = topology.distances(self.place.switch)
        for here, there in topology.beyond.items():
            if here.switch in distances and distances[here.switch] < distances[there.switch]:
                self._onward.setdefault(here.switch, []).append(here)
                self._awaited.setdefault(there.switch, set()).add(there)
        return self._through(self.place.switch, self.begun_ms)

    def heard(self, sender: str, sent_ms: int, place: Place, now_ms: int) -> list[Place]:
        """A hello that ``sender`` sent came in at ``place``: where more go out now."""
        awaited = self._awaited.get(place.switch, set())
        if place not in awaited or sent_ms < self._through_ms.get(sender, now_ms + 1):
            return []
        awaited.discard(place)
        return [] if awaited else self._through(place.switch, now_ms)

    def _through(self, switch: str, now_ms: int) -> list[Place]:
        self._awaited.pop(switch, None)
        self._through_ms[switch] = now_ms
        return self._onward.get(switch, [])

    @property
    def done(self) -> bool:
        return not self._awaited
