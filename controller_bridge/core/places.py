"""Ports of the edge that the settings name, by name or number, and where they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from controller_bridge.fabric import End
from controller_bridge.openflow.multipart import Port
from controller_bridge.topology import Place


@dataclass
class Places:
    """``hosts``: where each hypervisor's uplink is. ``others``: more ports at which there is no switch.

    ``links``: the only ports at which there may be one; empty: any but those.
    """

    hosts: Mapping[str, End] = field(default_factory=dict)
    others: tuple[End, ...] = ()
    links: tuple[End, ...] = ()
    _known: dict[End, Place] = field(default_factory=dict)
    _links: dict[End, Place] = field(default_factory=dict)

    def found(self, switch: str, ports: Iterable[Port]) -> Iterator[tuple[Place, Place]]:
        """``switch`` has these ports; old and new place of what was somewhere else before. One that has gone stays where it was."""
        by_number = {str(one.number): one.number for one in ports}
        by_name = {one.name: one.number for one in ports}
        numbers = by_number | by_name
        here = {
            end: Place(switch, numbers[end.port])
            for end in {*self.hosts.values(), *self.others, *self.links}
            if end.switch == switch and end.port in numbers
        }
        self._links |= {end: here[end] for end in self.links if end in here}
        for end in here.keys() & {*self.hosts.values(), *self.others}:
            old, new = self._known.get(end), here[end]
            self._known[end] = new
            if old is not None and old != new:
                yield old, new

    def of_host(self, name: str) -> Place | None:
        """None if there is no such host, or its switch has not been there yet."""
        end = self.hosts.get(name)
        return self._known.get(end) if end is not None else None

    def outside(self, place: Place) -> bool:
        """Whether no switch can be there."""
        if self.links and place not in self._links.values():
            return True
        return place in self._known.values()
