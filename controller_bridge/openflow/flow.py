"""Flow entries and what changes them (ofp_flow_mod, section 7.3.4.1), encoded in bulk: a hundred thousand of them are one buffer.

1.4 differs in one field (importance), which is 0 here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from controller_bridge.openflow.action import GROUP_ANY, NO_BUFFER, PORT_ANY
from controller_bridge.openflow.match import Match, unpack_match
from controller_bridge.openflow.wire import Type
from vmnet.errors import PeerError

ALL_TABLES: Final = 0xFF
EXACTLY: Final = 0xFFFFFFFFFFFFFFFF
"""A cookie's mask, to ask for the flows of one cookie."""
SAME_OWNER: Final = EXACTLY - 1
"""A cookie's mask for strict changes. One that is exact makes Open vSwitch 3.1 walk all flows of that cookie for each of them
(``collect_rules_strict`` in its ofproto.c): ten thousand changes took 5 s, and with this mask they take 0.1."""
_HEAD = struct.Struct("!BBHIQQBBHHHIIIHH")
"""The message's header and all of ofp_flow_mod before its match."""
_STATS = struct.Struct("!HBxIIHHHHxxxxQQQ")
_QUERY = struct.Struct("!BxxxIIxxxxQQ")


class Command(IntEnum):
    ADD = 0
    MODIFY = 1
    MODIFY_STRICT = 2
    DELETE = 3
    DELETE_STRICT = 4


class Flow(NamedTuple):
    """``instructions`` are encoded (:mod:`controller_bridge.openflow.action`); timeouts in seconds, 0: none."""

    priority: int
    match: Match
    instructions: bytes
    cookie: int = 0
    table: int = 0
    idle_s: int = 0
    hard_s: int = 0
    flags: int = 0

    @property
    def place(self) -> tuple[int, int, bytes]:
        """What makes it one entry of its switch: two flows with one place cannot be there at once."""
        return self.table, self.priority, self.match.oxm


class Change(NamedTuple):
    """MODIFY_STRICT and DELETE_STRICT touch only the one entry at the flow's place; with ``mask``, only of such a cookie."""

    command: Command
    flow: Flow
    mask: int = 0


def flow_mod(version: int, xid: int, command: Command, flow: Flow, mask: int = 0) -> bytes:
    """One whole message. ``mask``: which bits of an entry's cookie have to be the flow's (not for ADD)."""
    priority, match, instructions, cookie, table, idle_s, hard_s, flags = flow
    rest = match.packed() + instructions
    if command >= Command.DELETE:
        rest = match.packed()
    return (
        _HEAD.pack(
            *(version, Type.FLOW_MOD, _HEAD.size + len(rest), xid, cookie, mask, table, command),
            *(idle_s, hard_s, priority, NO_BUFFER, PORT_ANY, GROUP_ANY, flags, 0),
        )
        + rest
    )


def delete_all(version: int, xid: int, cookie: int, mask: int = EXACTLY, table: int = ALL_TABLES) -> bytes:
    """Every flow whose cookie has the bits of ``mask`` as in ``cookie``."""
    return flow_mod(version, xid, Command.DELETE, Flow(0, Match(), b"", cookie, table), mask)


class FlowStats(NamedTuple):
    """A flow as a switch tells it, and how much it has carried."""

    flow: Flow
    packets: int
    bytes: int


def flow_query(cookie: int = 0, mask: int = 0, table: int = ALL_TABLES, match: Match | None = None) -> bytes:
    """Body of an OFPMP_FLOW request."""
    return _QUERY.pack(table, PORT_ANY, GROUP_ANY, cookie, mask) + (match or Match()).packed()


def flows_in(entries: bytes) -> Iterator[FlowStats]:
    """Of an OFPMP_FLOW reply (1.3, 1.4), without the multipart header. PeerError if it is malformed."""
    at, end = 0, len(entries)
    while at < end:
        if end - at < _STATS.size:
            raise PeerError("flow statistics end within an entry")
        length, table, _s, _ns, priority, idle, hard, flags, cookie, packets, size = _STATS.unpack_from(
            entries, at
        )
        if length < _STATS.size + 8 or at + length > end:
            raise PeerError("flow statistics with an entry of impossible length")
        one = entries[at : at + length]
        match, after = unpack_match(one, _STATS.size)
        yield FlowStats(Flow(priority, match, one[after:], cookie, table, idle, hard, flags), packets, size)
        at += length


def by_place(flows: Iterable[Flow]) -> dict[tuple[int, int, bytes], Flow]:
    return {one.place: one for one in flows}
