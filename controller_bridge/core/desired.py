"""What the switches' tables are to say, and how to get there from what they say now. Pure.

Each station has a tree of shortest paths towards it, one entry a switch, by its MAC address. Changes are made in levels, nearest to
the station first (:mod:`controller_bridge.trees` says why no packet is astray meanwhile); what is not wanted any more goes last. On a
switch that has no room for both it goes first: meanwhile the controller itself sends on what would have gone by it.

=========  =====================================================  ==============================================
priority   entry                                                  does
=========  =====================================================  ==============================================
65000      LLDP                                                   asks the controller
60000      ARP, neighbour discovery                               asks the controller
40000      to a gateway's MAC, for a station's address            to the station's MAC, and on its way
30001      to a MAC that moves, by a certain port                 on the way that it is on (:func:`_guards`)
30000      to a station's MAC                                     on its way
1          broadcast and multicast, and whoever is not known      asks the controller
=========  =====================================================  ==============================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final

from controller_bridge import trees
from controller_bridge.core import lldp
from controller_bridge.core.hosts import Station
from controller_bridge.core.marks import Kind, cookie
from controller_bridge.core.room import Key, Wanted
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import SAME_OWNER, Change, Command, Flow
from controller_bridge.openflow.match import Field, Match
from controller_bridge.paths import Changes
from controller_bridge.topology import Place, Topology

_ARP, _IPV4, _IPV6, _ICMPV6 = 0x0806, 0x0800, 0x86DD, 58
_DISCOVERY: Final = (133, 135, 136)
"""ICMPv6: router solicitation, neighbour solicitation and advertisement."""

Table = dict[Key, Flow]
Tree = Mapping[str, tuple[int, int]]
"""As of :func:`controller_bridge.trees.towards`."""


def _ask(priority: int, match: Match) -> Flow:
    return Flow(priority, match, action.apply([action.output(action.PORT_CONTROLLER)]), cookie(Kind.BASE))


BASE: Final = (
    _ask(65000, Match.of(eth_type=lldp.ETHER_TYPE)),
    _ask(60000, Match.of(eth_type=_ARP)),
    *(_ask(60000, Match.of(eth_type=_IPV6, ip_proto=_ICMPV6, icmpv6_type=kind)) for kind in _DISCOVERY),
    _ask(1, Match()),
)


@dataclass(frozen=True)
class Gateways:
    """``mac``: what the fabric answers with for the gateways' addresses. Stations of all subnets are reached through it."""

    mac: bytes


def wanted(
    topology: Topology,
    switches: Iterable[str],
    stations: Mapping[bytes, Station],
    gateways: Gateways | None,
    left: Mapping[bytes, Place] | None = None,
) -> dict[str, dict[Key, Wanted]]:
    """By switch. Of a station that a switch has no way to, nothing: what is there stays (:func:`levels`). ``left``: see Hosts."""
    found: dict[str, dict[Key, Wanted]] = {
        name: {one.place: Wanted(0, one) for one in BASE} for name in switches
    }
    trees_to: dict[Place, Tree] = {}
    for mac, station in sorted(stations.items()):
        if station.place.switch not in found:
            continue
        if station.place not in trees_to:
            trees_to[station.place] = trees.towards(topology, station.place)
        for switch, (distance, port) in trees_to[station.place].items():
            for one in _entries(mac, station, port, gateways):
                found[switch][one.place] = Wanted(distance, one, mac)
        old = (left or {}).get(mac)
        if old is not None and old.switch in found:
            now, other = trees_to[station.place], trees.towards(topology, old)
            for switch, one in _guards(mac, station, topology, now, other):
                found[switch][one.place] = Wanted(now[switch][0], one, mac)
    return found


def _guards(
    mac: bytes, station: Station, topology: Topology, now: Tree, other: Tree
) -> Iterator[tuple[str, Flow]]:
    """What comes by a link that only one of the two trees uses goes on by that tree (:mod:`controller_bridge.trees` says why).

    They are the same before and after the station has moved, and so are there when it does.
    """
    for here, port in trees.parted(topology, trees.ways(now), trees.ways(other)):
        match = Match.of(in_port=here.port, eth_dst=mac)
        does = action.apply([action.output(port)])
        yield here.switch, Flow(30001, match, does, cookie(Kind.STATION, station.mark))


def _entries(mac: bytes, station: Station, port: int, gateways: Gateways | None) -> Iterable[Flow]:
    own, by_address = cookie(Kind.STATION, station.mark), cookie(Kind.GATEWAY, station.mark)
    yield Flow(30000, Match.of(eth_dst=mac), action.apply([action.output(port)]), own)
    if gateways is None:
        return
    does = action.apply(
        [
            action.set_field(Field.ETH_SRC, gateways.mac),
            action.set_field(Field.ETH_DST, mac),
            action.output(port),
        ]
    )
    for address in station.addresses:
        if address.version == 6 and address.is_link_local:
            continue
        match = (
            Match.of(eth_dst=gateways.mac, eth_type=_IPV4, ipv4_dst=address)
            if address.version == 4
            else Match.of(eth_dst=gateways.mac, eth_type=_IPV6, ipv6_dst=address)
        )
        yield Flow(40000, match, does, by_address)


def levels(
    actual: Mapping[str, Table],
    desired: Mapping[str, Mapping[Key, Wanted]],
    keep: Mapping[str, Set[bytes]],
    tight: Set[str] = frozenset(),
) -> list[Changes]:
    """What to change, in this order; of each switch in ``desired`` that ``actual`` knows the table of (our own entries of it).

    ``keep``: by switch, MAC addresses of stations that are known, but that no way leads to now: their entries stay. ``tight``:
    switches that have no room for what is new beside what is old.
    """
    first: Changes = {}
    last: Changes = {}
    for switch, entries in desired.items():
        gone = extra(actual.get(switch, {}), entries, keep.get(switch, frozenset()))
        if gone:
            changes = [Change(Command.DELETE_STRICT, one, SAME_OWNER) for one in gone]
            (first if switch in tight else last)[switch] = changes
    return [one for one in (first, *differences(actual, desired), last) if one]


def differences(actual: Mapping[str, Table], desired: Mapping[str, Mapping[Key, Wanted]]) -> list[Changes]:
    """What is missing or not as it should be, nearest first."""
    by_level: dict[int, Changes] = {}
    for switch, entries in desired.items():
        table = actual.get(switch)
        if table is None:
            continue
        for key, (level, flow, _mac) in entries.items():
            there = table.get(key)
            if there is None or there.cookie != flow.cookie:
                by_level.setdefault(level, {}).setdefault(switch, []).append(Change(Command.ADD, flow))
            elif there.instructions != flow.instructions:
                by_level.setdefault(level, {}).setdefault(switch, []).append(
                    Change(Command.MODIFY_STRICT, flow, SAME_OWNER)
                )
    return [by_level[level] for level in sorted(by_level)]


def extra(table: Table, entries: Mapping[Key, Wanted], keep: Set[bytes]) -> list[Flow]:
    """Entries that are not wanted any more."""
    return [one for key, one in table.items() if key not in entries and station_of(one) not in keep]


def station_of(one: Flow) -> bytes | None:
    """The MAC address of whom an entry of ours is for; None for what is for nobody in particular."""
    return action.sets(one.instructions, Field.ETH_DST) or one.match.get(Field.ETH_DST)


def applied(table: Table, changes: Iterable[Change]) -> Table:
    """The table afterwards."""
    made = dict(table)
    for command, flow, _mask in changes:
        if command is Command.DELETE_STRICT:
            made.pop(flow.place, None)
        else:
            made[flow.place] = flow
    return made
