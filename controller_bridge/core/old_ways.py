"""By which ports what is for a station that has moved still gets to where it was. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller_bridge import trace, trees
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Field
from controller_bridge.topology import Place, Topology


def old_ways(
    tables: Mapping[str, Sequence[Flow]], topology: Topology, mac: bytes, old: Place, now: Place
) -> list[Place]:
    """Of each switch that leads elsewhere now, the port that it led to: if from there tables still lead to ``old``, as guards do."""
    before, after = (trees.ways(trees.towards(topology, end)) for end in (old, now))
    forks = [Place(*way) for way in sorted(before.items()) if after.get(way[0], way[1]) != way[1]]
    return [one for one in forks if one == old or _leads(tables, topology, mac, one, old)]


def _leads(
    tables: Mapping[str, Sequence[Flow]], topology: Topology, mac: bytes, out: Place, old: Place
) -> bool:
    return trace.walk(tables, topology, topology.beyond[out], {Field.ETH_DST: mac}).end == old
