"""Who is linked to whom, and how many links apart things are. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Graph:
    """Switches, hosts and clients by name, each with its neighbours. Links count both ways and alike."""

    neighbours: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, links: Iterable[tuple[str, str]]) -> Graph:
        found: dict[str, set[str]] = {}
        for one, other in links:
            found.setdefault(one, set()).add(other)
            found.setdefault(other, set()).add(one)
        return cls({name: frozenset(others) for name, others in found.items()})

    def hops(self, start: str, forwarding: Iterable[str] | None = None) -> dict[str, int]:
        """Links from ``start`` to everything that can be reached, breadth first.

        ``forwarding``: what packets pass through, usually the switches; None: everything.
        """
        passes = set(self.neighbours if forwarding is None else forwarding) | {start}
        found = {start: 0}
        todo = deque([start])
        while todo:
            here = todo.popleft()
            if here not in passes:
                continue
            for other in self.neighbours.get(here, frozenset()) - found.keys():
                found[other] = found[here] + 1
                todo.append(other)
        return found
