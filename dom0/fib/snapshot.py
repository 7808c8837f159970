"""All that a namespace forwards by, as chunks of messages that another namespace takes as they are.

Addresses come first (a gateway must be reachable when a next hop is made), then next hops, groups of them, routes, rules, neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dom0.fib import address, dump, neighbour, nexthop, route, rule
from dom0.fib.message import (
    GETADDR,
    GETNEIGH,
    GETNEXTHOP,
    GETROUTE,
    GETRULE,
    INET,
    INET6,
    RefusedMessageError,
)
from dom0.fib.templates import Batch, Templates

MOST_BYTES = 60 << 10


def chunks(netns: str, besides: int) -> Iterator[bytes]:
    """Each at most 60 KiB. ``besides``: index of the management interface, which is not copied. OSError if a dump is refused."""
    for source in (
        _addresses(netns, besides),
        _next_hops(netns),
        _routes(netns),
        _rules(netns),
        _neighbours(netns, besides),
    ):
        yield from _filled(source)


def _filled(source: Iterable[list[bytes]]) -> Iterator[bytes]:
    """Pieces joined until a chunk is full."""
    chunk: list[bytes] = []
    size = 0
    for piece in source:
        for one in piece:
            if size + len(one) > MOST_BYTES:
                yield b"".join(chunk)
                chunk, size = [], 0
            chunk.append(one)
            size += len(one)
    if chunk:
        yield b"".join(chunk)


def _addresses(netns: str, besides: int) -> Iterator[list[bytes]]:
    for piece in dump.pieces(netns, GETADDR, 0):
        found = []
        for one in piece:
            try:
                parsed = address.parse(one)
            except RefusedMessageError:
                continue
            if parsed.index != besides:
                found.append(parsed.install)
        yield found


def _next_hops(netns: str) -> Iterator[list[bytes]]:
    """Groups last: an id says nothing of the order."""
    found = [
        made
        for piece in dump.pieces(netns, GETNEXTHOP, 0)
        for one in piece
        if (made := nexthop.from_dump(one))
    ]
    yield [message for group, message in found if not group]
    yield [message for group, message in found if group]


def _routes(netns: str) -> Iterator[list[bytes]]:
    templates = Templates(route.from_dump)
    for family in (INET, INET6):
        for piece in dump.pieces(netns, GETROUTE, family):
            batch = Batch()
            templates.feed(piece, batch)
            yield batch.messages


def _rules(netns: str) -> Iterator[list[bytes]]:
    for family in (INET, INET6):
        for piece in dump.pieces(netns, GETRULE, family):
            found = []
            for one in piece:
                try:
                    parsed = rule.parse(one)
                except RefusedMessageError:
                    continue
                if parsed.copied:
                    found.append(parsed.install)
            yield found


def _neighbours(netns: str, besides: int) -> Iterator[list[bytes]]:
    for piece in dump.pieces(netns, GETNEIGH, 0):
        yield [made for one in piece if (made := neighbour.from_dump(one, besides))]
