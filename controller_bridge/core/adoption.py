"""What an earlier controller knew of stations, as the switches' tables say it. Pure.

An entry that leads out of the fabric says where its station is. Of a bound one every entry counts, also those that lead on to another
switch: while that has not connected, nobody else is believed to be the station. Of entries that differ the newer ones are right
(:mod:`controller_bridge.core.marks`): a switch that was away during a move still has the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from controller_bridge.core import marks, neighbours
from controller_bridge.core.desired import station_of
from controller_bridge.core.hosts import NOWHERE, Hosts, Station
from controller_bridge.core.marks import Mark
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Field
from controller_bridge.topology import Place

Out = Callable[[int, bool], Place | None]
"""A port of the switch, and whether who is bound is looked for: only at a host's port. Its place, if it leads out of the fabric."""


class _Entry(NamedTuple):
    mac: bytes
    mark: Mark
    place: Place | None
    flow: Flow
    late: bool
    """For what is under way to where the station was before."""


def bound(hosts: Hosts, table: Iterable[Flow], out: Out) -> None:
    """As soon as a switch has connected: who is bound, and where if ``out`` knows it already."""
    _adopt(hosts, [one for one in _entries(table, out) if one.mark.bound])


def everything(hosts: Hosts, table: Iterable[Flow], out: Out) -> None:
    """When the links are known."""
    _adopt(hosts, list(_entries(table, out)))


def _entries(table: Iterable[Flow], out: Out) -> Iterator[_Entry]:
    for one in table:
        mac, ports = station_of(one), action.outputs(one.instructions)
        if mac is not None and len(ports) == 1 and ports[0] < action.PORT_MAX:
            mark, late = marks.read(one.cookie), one.match.get(Field.IN_PORT) is not None
            yield _Entry(mac, mark, out(ports[0], mark.bound), one, late)


def _adopt(hosts: Hosts, every: list[_Entry]) -> None:
    entries = [one for one in every if not one.late]
    for one in entries:
        known = hosts.stations.get(one.mac)
        if known is None:
            if one.place is not None or one.mark.bound:
                hosts.put(one.mac, Station(one.place or NOWHERE, mark=one.mark))
        elif marks.newer(one.mark.generation, known.mark.generation):
            place = one.place or (NOWHERE if one.mark.bound else known.place)
            hosts.claims.pop(one.mac, None)
            hosts.put(one.mac, Station(place, known.addresses, one.mark))
        elif known.place == NOWHERE and one.place is not None and one.mark == known.mark:
            hosts.put(one.mac, Station(one.place, known.addresses, known.mark))
    for one in entries:
        _address(hosts, one)
    for one in every:
        known = hosts.stations.get(one.mac)
        elsewhere = one.place is not None and known is not None and known.place != one.place
        if one.late and one.place is not None and elsewhere and known is not None and known.mark == one.mark:
            hosts.left[one.mac] = one.place


def _address(hosts: Hosts, one: _Entry) -> None:
    known = hosts.stations.get(one.mac)
    packed = one.flow.match.get(Field.IPV4_DST) or one.flow.match.get(Field.IPV6_DST)
    if known is None or packed is None or one.mark != known.mark:
        return
    address = neighbours.unpack(packed)
    if known.bound or hosts.owner(address) is None:
        hosts.put(one.mac, Station(known.place, known.addresses | {address}, known.mark, known.move))
