"""The controller's state and what follows from each thing that happens. Pure: events and the time in, actions out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from controller_bridge.core import desired, lldp, neighbours
from controller_bridge.core.desired import COOKIE, Gateways, Key, Table, Wanted
from controller_bridge.core.hosts import Address, Hosts, Station
from controller_bridge.core.links import Links
from controller_bridge.core.lldp import Origin
from controller_bridge.core.neighbours import Said
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Change, Command, Flow
from controller_bridge.openflow.match import Field
from controller_bridge.openflow.multipart import Port
from controller_bridge.paths import Changes
from controller_bridge.topology import Place, Topology

HELLO_S: Final = 1.0
SETTLE_S: Final = 2.5
"""After a switch has come, so long until its links are known and tables are changed."""
GATEWAY_MAC: Final = bytes.fromhex("02766d677701")
_NONE: Final[frozenset[Address]] = frozenset()
_LLDP: Final = lldp.ETHER_TYPE.to_bytes(2, "big")


@dataclass(frozen=True)
class Send:
    """A frame out of a switch's port."""

    place: Place
    frame: bytes


@dataclass
class Member:
    """A switch that is connected. ``table``: our entries on it."""

    datapath: int
    ports: dict[int, Port]
    table: Table

    def live(self) -> list[int]:
        return [one.number for one in self.ports.values() if one.live and one.number < action.PORT_MAX]


@dataclass
class Counts:
    forged_lldp: int = 0
    refused: int = 0
    limited: int = 0


@dataclass
class Core:
    """``key``: for LLDP. ``gateways``: addresses that the fabric answers for. ``outside``: ports at which there is no switch, whatever
    is heard there. ``dirty``: tables may have to change."""

    key: bytes
    gateways: frozenset[Address] = frozenset()
    outside: frozenset[Place] = frozenset()
    port_rate: float = 500.0
    """Packets a second that a port may have dealt with; and as many at once."""
    members: dict[str, Member] = field(default_factory=dict)
    links: Links = field(default_factory=Links)
    hosts: Hosts = field(default_factory=Hosts)
    counts: Counts = field(default_factory=Counts)
    dirty: bool = False
    settled_at_s: float = 0.0
    _adopted: bool = False
    _hello_s: float = float("-inf")
    _budgets: dict[Place, tuple[float, float]] = field(default_factory=dict)

    # -- switches -------------------------------------------------------------------------------------------------------

    def switch_up(
        self, name: str, datapath: int, ports: Iterable[Port], flows: Iterable[Flow], now_s: float
    ) -> list[Send]:
        """Connected, its table read and :meth:`base` done: ours of ``flows`` are kept as they are until its links are known."""
        table = {one.place: one for one in flows if one.cookie & desired.OWNER_MASK == COOKIE}
        self.members[name] = Member(datapath, {one.number: one for one in ports}, table)
        self.settled_at_s = max(self.settled_at_s, now_s + SETTLE_S)
        self.dirty = True
        return self._hello(name, now_s)

    def switch_down(self, name: str) -> None:
        """It may forward still; but nobody can tell it anything, and paths that need not cross it will not."""
        self.members.pop(name, None)
        self.dirty = self.links.switch_lost(name) or self.dirty

    def port(self, name: str, port: Port, gone: bool) -> None:
        member = self.members.get(name)
        if member is None:
            return
        place = Place(name, port.number)
        if gone:
            member.ports.pop(port.number, None)
        else:
            member.ports[port.number] = port
        if gone or not port.live:
            links, stations = self.links.lost(place), self.hosts.port_lost(place)
            self.dirty = links or stations or self.dirty

    # -- time -----------------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> list[Send]:
        """To be called when :meth:`next_s` says so, or more often."""
        expired, moved = self.links.expire(now_s), self.hosts.due(now_s)
        self.dirty = expired or moved or self.dirty
        if now_s - self._hello_s < HELLO_S:
            return []
        self._hello_s = now_s
        return [send for name in self.members for send in self._hello(name, now_s)]

    def next_s(self, now_s: float) -> float:
        due = self.hosts.next_due_s()
        times = [self._hello_s + HELLO_S, *([due] if due is not None else [])]
        if self.dirty and now_s < self.settled_at_s:
            times.append(self.settled_at_s)
        return max(now_s, min(times))

    def _hello(self, name: str, now_s: float) -> list[Send]:
        member = self.members[name]
        return [
            Send(Place(name, port), lldp.frame(Origin(member.datapath, port), self.key, now_s))
            for port in member.live()
        ]

    # -- packets --------------------------------------------------------------------------------------------------------

    def packet(self, place: Place, frame: bytes, now_s: float) -> list[Send]:
        """One that a switch had no entry for, or was told to show us. What is a lie is dropped, and counted."""
        if len(frame) < 14 or place.switch not in self.members:
            return []
        if frame[12:14] == _LLDP:
            self._lldp(place, frame, now_s)
            return []
        if not self._affordable(place, now_s):
            self.counts.limited += 1
            return []
        if place in self.links.ends():
            return self._onward(frame)
        said = neighbours.read(frame)
        if said is not None and not self.gateways.isdisjoint(said.owns):
            self.counts.refused += 1
            return []
        heard = self.hosts.heard(frame[6:12], said.owns if said else _NONE, place, now_s)
        self.dirty = heard.changed or self.dirty
        if heard.refused:
            self.counts.refused += 1
            return []
        asked = self._ask(heard.ask, frame[6:12]) if heard.ask is not None else []
        return [
            *asked,
            *(self._neighbour(place, frame, said) if said is not None else self._other(place, frame)),
        ]

    def _lldp(self, place: Place, frame: bytes, now_s: float) -> None:
        origin = lldp.read(frame, self.key, now_s)
        sender = next(
            (name for name, one in self.members.items() if origin and one.datapath == origin.datapath), None
        )
        if origin is None or sender is None or place in self.outside:
            self.counts.forged_lldp += 1
            return
        if self.links.heard(Place(sender, origin.port), place, now_s):
            self.hosts.became_link(self.links.ends())
            self.dirty = True

    def _affordable(self, place: Place, now_s: float) -> bool:
        left, since_s = self._budgets.get(place, (self.port_rate, now_s))
        left = min(self.port_rate, left + (now_s - since_s) * self.port_rate)
        self._budgets[place] = (max(0.0, left - 1), now_s)
        return left >= 1

    def _ask(self, place: Place, mac: bytes) -> list[Send]:
        """Whether a station is still there: what it answers comes as if it had said it by itself."""
        known = self.hosts.stations[mac].addresses
        own = {one.version: one for one in self.gateways}
        return [
            Send(place, neighbours.question(one, GATEWAY_MAC, own.get(one.version, type(one)(0)), mac))
            for one in sorted(known, key=str)[:2]
        ]

    def _neighbour(self, place: Place, frame: bytes, said: Said) -> list[Send]:
        if said.asks is None:
            return self._other(place, frame)
        owner = GATEWAY_MAC if said.asks in self.gateways else self.hosts.owner(said.asks)
        if owner is None:
            return self._everywhere(place, frame)
        if owner == frame[6:12] or said.asker is None:
            return []
        return [Send(place, neighbours.answer(said.asks, owner, frame[6:12], said.asker))]

    def _other(self, place: Place, frame: bytes) -> list[Send]:
        if frame[0] & 1:
            return self._everywhere(place, frame)
        if frame[:6] == GATEWAY_MAC:
            return self._through_gateway(place, frame)
        return self._onward(frame)

    def _through_gateway(self, place: Place, frame: bytes) -> list[Send]:
        """Nobody is known by that address yet: he is asked for, and the next packet will find him."""
        wanted = neighbours.destination(frame)
        if wanted is None or self.hosts.owner(wanted) is not None:
            return []
        own = next((one for one in sorted(self.gateways, key=str) if one.version == wanted.version), None)
        return (
            self._everywhere(place, neighbours.question(wanted, GATEWAY_MAC, own)) if own is not None else []
        )

    def _onward(self, frame: bytes) -> list[Send]:
        """To where its station is, past tables that do not know it yet."""
        station = self.hosts.stations.get(frame[:6])
        return (
            [Send(station.place, frame)]
            if station is not None and station.place.switch in self.members
            else []
        )

    def _everywhere(self, place: Place, frame: bytes) -> list[Send]:
        """Out of every port at the edge but the one it came by; never over a link, so nothing can go round."""
        return [Send(one, frame) for one in self.edges() if one != place]

    def edges(self) -> list[Place]:
        ends = self.links.ends()
        every = [Place(name, port) for name, member in self.members.items() for port in member.live()]
        return [one for one in every if one not in ends]

    @staticmethod
    def base(flows: Iterable[Flow]) -> list[Change]:
        """What a switch that has ``flows`` lacks to show us what we have to see: before anything else."""
        there = {one.place: one.instructions for one in flows}
        return [Change(Command.ADD, one) for one in desired.BASE if there.get(one.place) != one.instructions]

    # -- tables ---------------------------------------------------------------------------------------------------------

    def topology(self) -> Topology:
        return Topology(
            self.members,
            [link for link in self.links.up() if {one.switch for one in link} <= self.members.keys()],
        )

    def changes(self, now_s: float) -> list[Changes]:
        """What to do now, level by level; nothing before the links are known. ``dirty`` is off then."""
        if now_s < self.settled_at_s:
            return []
        if not self._adopted:
            self._adopt()
        self.dirty = False
        tables = {name: one.table for name, one in self.members.items()}
        return desired.levels(tables, self._wanted(), frozenset(self.hosts.stations))

    def _wanted(self) -> Mapping[str, Mapping[Key, Wanted]]:
        gateways = Gateways(GATEWAY_MAC) if self.gateways else None
        return desired.wanted(self.topology(), self.members, self.hosts.stations, gateways)

    def done(self, switch: str, changes: Iterable[Change]) -> None:
        """The switch has made them."""
        member = self.members.get(switch)
        if member is not None:
            member.table = desired.applied(member.table, changes)

    def _adopt(self) -> None:
        """Stations that an earlier controller knew: an entry that leads out of the fabric says where one is."""
        self._adopted = True
        ends = self.links.ends()
        for name, member in self.members.items():
            for one in member.table.values():
                ports = action.outputs(one.instructions)
                rewritten = action.sets(one.instructions, Field.ETH_DST)
                mac = rewritten or one.match.get(Field.ETH_DST)
                if mac is None or len(ports) != 1 or ports[0] >= action.PORT_MAX:
                    continue
                place = Place(name, ports[0])
                if place not in ends and mac not in self.hosts.stations:
                    self.hosts.put(mac, Station(place))
        for member in self.members.values():
            for one in member.table.values():
                self._adopt_address(one)

    def _adopt_address(self, one: Flow) -> None:
        mac = action.sets(one.instructions, Field.ETH_DST)
        packed = one.match.get(Field.IPV4_DST) or one.match.get(Field.IPV6_DST)
        known = self.hosts.stations.get(mac) if mac else None
        if mac and known and packed:
            address = neighbours.unpack(packed)
            self.hosts.put(mac, Station(known.place, known.addresses | {address}, known.bound))
