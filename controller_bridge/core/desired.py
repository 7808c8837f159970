"""What the switches' tables are to say, and how to get there from what they say now. Pure.

Each station has a tree of shortest paths towards it, one entry a switch, by its MAC address. Changes are made in levels, nearest to
the station first (:mod:`controller_bridge.trees` says why no packet is astray meanwhile); what is not wanted any more goes last.

=========  =====================================================  ==============================================
priority   entry                                                  does
=========  =====================================================  ==============================================
65000      LLDP                                                   asks the controller
60000      ARP, neighbour discovery                               asks the controller
40000      to a gateway's MAC, for a station's address            to the station's MAC, and on its way
30000      to a station's MAC                                     on its way
1          broadcast and multicast, and whoever is not known      asks the controller
=========  =====================================================  ==============================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final, NamedTuple

from controller_bridge import trees
from controller_bridge.core import lldp
from controller_bridge.core.hosts import Station
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import SAME_OWNER, Change, Command, Flow
from controller_bridge.openflow.match import Field, Match
from controller_bridge.paths import Changes
from controller_bridge.topology import Topology

COOKIE: Final = 0x766D6E6574000000
OWNER_MASK: Final = 0xFFFFFFFFFF000000
"""Whose cookie begins so is ours, and nobody else's is touched."""
_BASE, _STATION, _GATEWAY = COOKIE | 2, COOKIE | 4, COOKIE | 6
_ARP, _IPV4, _IPV6, _ICMPV6 = 0x0806, 0x0800, 0x86DD, 58
_DISCOVERY: Final = (133, 135, 136)
"""ICMPv6: router solicitation, neighbour solicitation and advertisement."""

Key = tuple[int, int, bytes]
Table = dict[Key, Flow]


class Wanted(NamedTuple):
    """``level``: links to where it leads; 0 for what leads nowhere."""

    level: int
    flow: Flow


def _ask(priority: int, match: Match) -> Flow:
    return Flow(priority, match, action.apply([action.output(action.PORT_CONTROLLER)]), _BASE)


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
    topology: Topology, switches: Iterable[str], stations: Mapping[bytes, Station], gateways: Gateways | None
) -> dict[str, dict[Key, Wanted]]:
    """By switch. Of a station that a switch has no way to, nothing: what is there stays (:func:`levels`)."""
    found: dict[str, dict[Key, Wanted]] = {
        name: {one.place: Wanted(0, one) for one in BASE} for name in switches
    }
    for mac, station in sorted(stations.items()):
        if station.place.switch not in found:
            continue
        for switch, (distance, port) in trees.towards(topology, station.place).items():
            if switch in found:
                for one in _entries(mac, station, port, gateways):
                    found[switch][one.place] = Wanted(distance, one)
    return found


def _entries(mac: bytes, station: Station, port: int, gateways: Gateways | None) -> Iterable[Flow]:
    yield Flow(30000, Match.of(eth_dst=mac), action.apply([action.output(port)]), _STATION)
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
        yield Flow(40000, match, does, _GATEWAY)


def levels(
    actual: Mapping[str, Table], desired: Mapping[str, Mapping[Key, Wanted]], keep: Set[bytes] = frozenset()
) -> list[Changes]:
    """What to change, in this order; of each switch in ``desired`` that ``actual`` knows the table of (our own entries of it).

    ``keep``: MAC addresses of stations that are known, but that no way leads to now: their entries stay.
    """
    by_level: dict[int, Changes] = {}
    gone: Changes = {}
    for switch, entries in desired.items():
        table = actual.get(switch)
        if table is None:
            continue
        for key, (level, flow) in entries.items():
            there = table.get(key)
            if there is None or there.cookie != flow.cookie:
                by_level.setdefault(level, {}).setdefault(switch, []).append(Change(Command.ADD, flow))
            elif there.instructions != flow.instructions:
                by_level.setdefault(level, {}).setdefault(switch, []).append(
                    Change(Command.MODIFY_STRICT, flow, SAME_OWNER)
                )
        extra = [one for key, one in table.items() if key not in entries and not _kept(one, keep)]
        if extra:
            gone[switch] = [Change(Command.DELETE_STRICT, one, SAME_OWNER) for one in extra]
    found = [by_level[level] for level in sorted(by_level)]
    return [*found, gone] if gone else found


def _kept(one: Flow, keep: Set[bytes]) -> bool:
    destination = action.sets(one.instructions, Field.ETH_DST) or one.match.get(Field.ETH_DST)
    return destination in keep


def applied(table: Table, changes: Iterable[Change]) -> Table:
    """The table afterwards."""
    made = dict(table)
    for command, flow, _mask in changes:
        if command is Command.DELETE_STRICT:
            made.pop(flow.place, None)
        else:
            made[flow.place] = flow
    return made
