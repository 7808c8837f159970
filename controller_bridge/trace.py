"""Which way a packet goes, by what the switches' tables say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Field
from controller_bridge.paths import Hop, Path
from controller_bridge.topology import Place, Topology

Packet = Mapping[int, bytes]
"""Field -> value."""
_MOST_HOPS = 64


@dataclass(frozen=True)
class Walk:
    """``entries``: the one that decided, of each hop. ``end``: where it leaves the fabric; None if it does not, and ``why`` not."""

    path: Path
    entries: tuple[Flow, ...]
    end: Place | None
    why: str = ""


def walk(tables: Mapping[str, Sequence[Flow]], topology: Topology, start: Place, packet: Packet) -> Walk:
    """From where it comes in at ``start``. Follows output actions and set fields; what is sent to several ports ends the walk."""
    hops: list[Hop] = []
    entries: list[Flow] = []
    place = start
    while len(hops) < _MOST_HOPS:
        entry = decides(tables.get(place.switch, ()), place.port, packet)
        if entry is None:
            return Walk(tuple(hops), tuple(entries), None, f"{place.switch} has no entry for it")
        ports = action.outputs(entry.instructions)
        if len(ports) != 1 or ports[0] >= action.PORT_MAX:
            return Walk(tuple(hops), tuple(entries), None, f"{place.switch} {_said(ports)}")
        hops.append(Hop(place.switch, place.port, ports[0]))
        entries.append(entry)
        packet = {**packet, **action.rewrites(entry.instructions)}
        out = Place(place.switch, ports[0])
        if out not in topology.beyond:
            return Walk(tuple(hops), tuple(entries), out)
        if ports == [place.port]:
            why = f"{place.switch} drops it: it would go back where it came from"
            return Walk(tuple(hops), tuple(entries), None, why)
        place = topology.beyond[out]
        if any((hop.switch, hop.in_port) == place for hop in hops):
            return Walk(tuple(hops), tuple(entries), None, f"it goes in a circle, back to {place.switch}")
    return Walk(tuple(hops), tuple(entries), None, f"it is still under way after {_MOST_HOPS} switches")


def _said(ports: Sequence[int]) -> str:
    if not ports:
        return "drops it"
    if ports == [action.PORT_CONTROLLER]:
        return "asks its controller"
    return f"sends it to {len(ports)} ports" if len(ports) > 1 else f"sends it to reserved port {ports[0]:#x}"


def decides(table: Iterable[Flow], in_port: int, packet: Packet) -> Flow | None:
    """The entry of table 0 with the highest priority that fits; tables that follow are not looked at."""
    seen = {**packet, Field.IN_PORT: in_port.to_bytes(4, "big")}
    fitting = [one for one in table if one.table == 0 and fits(one, seen)]
    return max(fitting, key=lambda one: one.priority, default=None)


def fits(entry: Flow, packet: Packet) -> bool:
    for field, (value, mask) in entry.match.fields().items():
        own = packet.get(field)
        if own is None or len(own) != len(value):
            return False
        if mask is None:
            if own != value:
                return False
        elif any(a & m != b & m for a, b, m in zip(own, value, mask, strict=True)):
            return False
    return True


def packet_of(entry: Flow) -> dict[int, bytes]:
    """The one that an entry says most of: its match without its port; of a masked field, the first value."""
    return {field: value for field, (value, _mask) in entry.match.fields().items() if field != Field.IN_PORT}
