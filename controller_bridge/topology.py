"""Which switch is behind which port, and the shortest way from one to another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from itertools import pairwise
from typing import NamedTuple

import networkx

from controller_bridge.paths import Hop, Path
from vmnet.errors import NotFoundError


class Place(NamedTuple):
    """A switch's port, by its OpenFlow number."""

    switch: str
    port: int


class Topology:
    """``links``: each once, either way. Ports that are on no link lead out of the fabric."""

    def __init__(self, switches: Iterable[str], links: Iterable[tuple[Place, Place]]) -> None:
        self.beyond: dict[Place, Place] = {}
        """A link's port -> the port at its other end."""
        self._graph = networkx.MultiGraph()
        self._graph.add_nodes_from(switches)
        for one, other in links:
            self.beyond[one], self.beyond[other] = other, one
            self._graph.add_edge(one.switch, other.switch, ends={one.switch: one, other.switch: other})

    def shortest(
        self, start: Place, end: Place, via: Iterable[str] = (), avoid: Set[str] = frozenset()
    ) -> Path:
        """With the least number of links, through ``via`` in this order and not through ``avoid``. NotFoundError if there is none.

        Of several that are equally short, the one whose names come first: the same question gets the same answer.
        """
        stops = [start.switch, *via, end.switch]
        way = [start.switch]
        for here, there in pairwise(stops):
            way += self._way(here, there, avoid | (set(way) - {here}))[1:]
        return self._hops(start, way, end)

    def _way(self, start: str, end: str, avoid: Set[str]) -> list[str]:
        graph = self._graph.subgraph(name for name in self._graph if name not in avoid)
        try:
            return min(networkx.all_shortest_paths(graph, start, end))
        except (networkx.NetworkXNoPath, networkx.NodeNotFound):
            without = f" without {', '.join(sorted(avoid))}" if avoid else ""
            raise NotFoundError(f"no path from {start} to {end}{without}") from None

    def _hops(self, start: Place, way: list[str], end: Place) -> Path:
        hops, came = [], start.port
        for here, there in pairwise(way):
            # of several links between two, always the same
            ends = min((one["ends"] for one in self._graph[here][there].values()), key=lambda one: one[here])
            hops.append(Hop(here, came, ends[here].port))
            came = ends[there].port
        return (*hops, Hop(end.switch, came, end.port))

    def distances(self, switch: str) -> Mapping[str, int]:
        """Links to each switch that can be reached."""
        found: Mapping[str, int] = networkx.single_source_shortest_path_length(self._graph, switch)
        return found
