"""The controller's state and what follows from each thing that happens. Pure: events and the time in, actions out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from controller_bridge import last_words, trees
from controller_bridge.core import adoption, desired, lldp, marks, neighbours
from controller_bridge.core.answers import GATEWAY_MAC, OURS, Answers
from controller_bridge.core.desired import Gateways
from controller_bridge.core.hosts import Address, Hosts, Station
from controller_bridge.core.links import Links
from controller_bridge.core.lldp import Origin
from controller_bridge.core.marks import COOKIE
from controller_bridge.core.member import Member, Send
from controller_bridge.core.new_ways import new_ways
from controller_bridge.core.old_ways import old_ways
from controller_bridge.core.places import Places
from controller_bridge.core.room import Key, Room, Wanted, fit
from controller_bridge.core.sweeps import Sweeps
from controller_bridge.openflow.flow import Change, Command, Flow
from controller_bridge.openflow.multipart import Port
from controller_bridge.paths import Changes
from controller_bridge.topology import Place, Topology

HELLO_S: Final = 1.0
LEFT_S: Final = 1.0
"""So long after a move has ended its guards stay: a datapath follows its table some ms late (175 were the most that was seen)."""
SETTLE_S: Final = 2.5
"""After a switch has come, so long until its links are known and tables are changed."""
_LLDP: Final = lldp.ETHER_TYPE.to_bytes(2, "big")


@dataclass
class Counts:
    forged_lldp: int = 0
    refused: int = 0
    limited: int = 0


@dataclass
class Core:
    """``key``: for LLDP. ``gateways``: addresses that the fabric answers for. ``places``: ports at which there is no switch, whatever
    is heard there. ``table_sizes``: how many entries of ours a switch may have. ``dirty``: tables may have to change."""

    key: bytes
    gateways: frozenset[Address] = frozenset()
    places: Places = field(default_factory=Places)
    table_sizes: Mapping[str, int] = field(default_factory=dict)
    port_rate: float = 500.0
    """Packets a second that a port may have dealt with; and as many at once."""
    members: dict[str, Member] = field(default_factory=dict)
    links: Links = field(default_factory=Links)
    hosts: Hosts = field(default_factory=Hosts)
    counts: Counts = field(default_factory=Counts)
    dirty: bool = False
    settled_at_s: float = 0.0
    _adopted: set[str] = field(default_factory=set)
    _topology: tuple[object, Topology] | None = None
    _left_s: dict[bytes, float] = field(default_factory=dict)
    _sweeps: Sweeps = field(default_factory=Sweeps)
    _hello_s: float = float("-inf")
    _heard_ms: dict[Place, int] = field(default_factory=dict)
    """By the port it came in at, when the newest hello was sent."""
    _budgets: dict[Place, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.answers = Answers(self.hosts, self.links, self.members, self.gateways)

    # -- switches -------------------------------------------------------------------------------------------------------

    def switch_up(
        self, name: str, datapath: int, ports: Iterable[Port], flows: Iterable[Flow], now_s: float
    ) -> list[Send]:
        """Connected, its table read and :meth:`base` done: ours of ``flows`` are kept as they are until its links are known."""
        table = {one.place: one for one in flows if one.cookie & marks.OWNER_MASK == COOKIE}
        room = Room(self.table_sizes.get(name))
        self.members[name] = Member(datapath, {one.number: one for one in ports}, table, room)
        self._located(name)
        adoption.bound(self.hosts, table.values(), self._out(name))
        self.settled_at_s = max(self.settled_at_s, now_s + SETTLE_S)
        self.dirty = True
        return self._hello(name, now_s)

    def _located(self, name: str) -> None:
        """Hosts' ports are called by name: one that has another number now has taken its bound stations along."""
        for old, new in self.places.found(name, self.members[name].ports.values()):
            for mac, one in list(self.hosts.stations.items()):
                if one.bound and one.place == old:
                    self.hosts.bind(mac, new, partner=one.mark.partner, move=one.move)

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
            self._located(name)
        if gone or not port.live:
            links, stations = self.links.lost(place), self.hosts.port_lost(place)
            self.dirty = links or stations or self.dirty

    # -- time -----------------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> list[Send]:
        """To be called when :meth:`next_s` says so, or more often."""
        self._left_s = {mac: self._left_s.get(mac, now_s) for mac in self.hosts.left if not self._moves(mac)}
        self._arrived([mac for mac, since_s in self._left_s.items() if now_s - since_s >= LEFT_S])
        expired, moved = self.links.expire(now_s), self.hosts.due(now_s)
        self.dirty = expired or moved or self.dirty
        again = self.hellos(self._sweeps.again(lldp.clock_ms(now_s)), now_s)
        if now_s - self._hello_s < HELLO_S:
            return again
        self._hello_s = now_s
        asked = [send for one in self.hosts.contested for send in self.answers.ask_for(one)]
        return asked + [send for name in self.members for send in self._hello(name, now_s)]

    def next_s(self, now_s: float) -> float:
        due = self.hosts.next_due_s()
        times = [self._hello_s + HELLO_S, *([due] if due is not None else [])]
        times += [since_s + LEFT_S for since_s in self._left_s.values()]
        if self._sweeps.next_ms is not None:
            times.append(self._sweeps.next_ms / 1e3)
        if self.dirty and now_s < self.settled_at_s:
            times.append(self.settled_at_s)
        return max(now_s, min(times))

    @property
    def waiting(self) -> int:
        """Things that something will be done about when :meth:`next_s` says so; more of them: perhaps sooner than it said."""
        return len(self.hosts.claims) + len(self.hosts.contested) + len(self._sweeps)

    def _moves(self, mac: bytes) -> bool:
        """Its move has not ended."""
        known = self.hosts.stations.get(mac)
        return known is not None and known.mark.partner != 0

    def _arrived(self, macs: Iterable[bytes]) -> None:
        """Nothing is under way to these stations' old places any more."""
        for mac in macs:
            self._left_s.pop(mac, None)
            self.dirty = self.hosts.arrived(mac) or self.dirty

    def _hello(self, name: str, now_s: float) -> list[Send]:
        return self.hellos([Place(name, port) for port in self.members[name].live()], now_s)

    def _hello_at(self, place: Place, now_s: float) -> Send:
        origin = Origin(self.members[place.switch].datapath, place.port)
        return Send(place, lldp.frame(origin, self.key, now_s))

    # -- packets --------------------------------------------------------------------------------------------------------

    def packet(self, place: Place, frame: bytes, now_s: float) -> list[Send]:
        """One that a switch had no entry for, or was told to show us. What is a lie is dropped, and counted."""
        if len(frame) < 14 or place.switch not in self.members:
            return []
        is_hello, is_link = frame[12:14] == _LLDP, place in self.links.ends()
        # switches say hello as often as a move needs it; a guest that does so has no more than its port's share
        if not (is_hello and is_link) and not self._affordable(place, now_s):
            self.counts.limited += 1
            return []
        if is_hello:
            return self._lldp(place, frame, now_s)
        if is_link:
            return self.answers.passing(frame)
        if frame[6:12] in OURS:
            self.counts.refused += 1
            return []
        said = neighbours.read(frame)
        own = said.owns if said is not None else None
        if own is not None and own in self.gateways:
            self.counts.refused += 1
            return []
        heard = self.hosts.heard(frame[6:12], own, place, now_s)
        self.dirty = heard.changed or self.dirty
        if heard.refused:
            self.counts.refused += 1
            return self.answers.ask_for(heard.contested) if heard.contested is not None else []
        if last_words.are(frame):
            if self._moves(frame[6:12]):
                return self._sweep(place, frame, now_s)
            if self.hosts.has_left(frame[6:12], place):
                return []  # its move has ended: nobody waits for it
        asked = self._contradiction(heard.ask, frame[6:12]) if heard.ask is not None else []
        answered = (
            self.answers.neighbour(place, frame, said)
            if said is not None
            else self.answers.other(place, frame)
        )
        return [*asked, *answered] if asked else answered

    def _contradiction(self, place: Place, mac: bytes) -> list[Send]:
        """Asks for one: somebody else says that he is ``mac``."""
        if self._is_down(place):  # nobody there can
            self.dirty = self.hosts.port_lost(place) or self.dirty
            return []
        return self.answers.ask(place, mac)

    def _lldp(self, place: Place, frame: bytes, now_s: float) -> list[Send]:
        hello = lldp.read(frame, self.key, now_s)
        sender = next(
            (name for name, one in self.members.items() if hello and one.datapath == hello.origin.datapath),
            None,
        )
        if hello is None or sender is None or self._no_link(place, Place(sender, hello.origin.port)):
            self.counts.forged_lldp += 1
            return []
        self._heard_ms[place] = max(hello.sent_ms, self._heard_ms.get(place, 0))
        if self.links.heard(Place(sender, hello.origin.port), place, now_s):
            self.hosts.became_link(self.links.ends())
            self.dirty = True
        ports = self._sweeps.heard(sender, hello.sent_ms, place, lldp.clock_ms(now_s))
        return self._swept_to(ports, now_s)

    def _no_link(self, *places: Place) -> bool:
        """Two VMs that exchange what we send out at their ports would be one: no end may be outside."""
        return any(self.places.outside(one) for one in places)

    def _sweep(self, place: Place, frame: bytes, now_s: float) -> list[Send]:
        """A station that moves has sent its last at its old place: everybody hears of it when all before it has got through."""
        ports = self._sweeps.begin(place, frame, self.topology(), lldp.clock_ms(now_s))
        return self._swept_to(ports, now_s)

    def _swept_to(self, ports: Iterable[Place], now_s: float) -> list[Send]:
        """What is swept everywhere goes to everybody; when the move has ended, nobody waits for it, and somebody might learn of it."""
        sends = self.hellos(ports, now_s)
        for one in self._sweeps.take_done():
            if self._moves(one.frame[6:12]):
                sends += self.answers.other(one.place, one.frame)
        return sends

    def have_heard(self, ports: Iterable[Place], since_s: float) -> bool:
        """Hellos that were sent by these ports at ``since_s`` or later have come. A port without a switch behind it is passed over."""
        beyond = (self.topology().beyond.get(port) for port in ports)
        since_ms = lldp.clock_ms(since_s)
        return all(self._heard_ms.get(one, -1) >= since_ms for one in beyond if one is not None)

    def hellos(self, ports: Iterable[Place], now_s: float) -> list[Send]:
        """To go out now, but where no switch can be. :meth:`have_heard` tells when they have come."""
        return [
            self._hello_at(port, now_s)
            for port in ports
            if port.switch in self.members and not self.places.outside(port)
        ]

    def _affordable(self, place: Place, now_s: float) -> bool:
        left, since_s = self._budgets.get(place, (self.port_rate, now_s))
        left = min(self.port_rate, left + (now_s - since_s) * self.port_rate)
        self._budgets[place] = (max(0.0, left - 1), now_s)
        return left >= 1

    def _is_down(self, place: Place) -> bool:
        member = self.members.get(place.switch)
        return member is not None and place.port not in member.live()

    @staticmethod
    def base(flows: Iterable[Flow]) -> list[Change]:
        """What a switch that has ``flows`` lacks to show us what we have to see: before anything else."""
        there = {one.place: one.instructions for one in flows}
        return [Change(Command.ADD, one) for one in desired.BASE if there.get(one.place) != one.instructions]

    @staticmethod
    def spared(flows: Iterable[Flow], count: int) -> list[Flow]:
        """Those of ours that a full table can do without first."""
        fixed = {one.place for one in desired.BASE}
        others = [one for one in flows if one.place not in fixed]
        return sorted(others, key=lambda one: marks.read(one.cookie).bound)[:count]

    # -- tables ---------------------------------------------------------------------------------------------------------

    def topology(self) -> Topology:
        """Of the switches that are connected."""
        links = [link for link in self.links.up() if {one.switch for one in link} <= self.members.keys()]
        known = (frozenset(self.members), tuple(links))
        if self._topology is None or self._topology[0] != known:
            self._topology = (known, Topology(self.members, links))
        return self._topology[1]

    @property
    def adopted(self) -> bool:
        """What switches' tables say of stations is known: who asks for a move may be answered."""
        return bool(self._adopted)

    def reachable(self, macs: Iterable[bytes]) -> set[str]:
        """Switches that have a way to all of these stations, and can be told so."""
        found = set(self.members)
        for place in {one.place for mac in macs if (one := self.hosts.stations.get(mac)) is not None}:
            found &= trees.towards(self.topology(), place).keys() if place.switch in self.members else set()
        return found

    def reached(self, place: Place) -> bool:
        """Every switch that is connected has a way there now."""
        return (
            place.switch in self.members
            and self.members.keys() <= trees.towards(self.topology(), place).keys()
        )

    def changes(self, now_s: float) -> list[Changes]:
        """What to do now, level by level; nothing before the links are known. ``dirty`` is off then."""
        if now_s < self.settled_at_s:
            return []
        self._adopt()
        self.dirty = False
        wanted = self._wanted(self.hosts.stations)
        # of a station that no way leads to now, what is there stays
        known = self.hosts.stations.keys()
        keep = {name: known - {one.mac for one in some.values()} for name, some in wanted.items()}
        tight = {name for name in self.members if self._fit(name, wanted, keep[name])}
        return desired.levels({name: one.table for name, one in self.members.items()}, wanted, keep, tight)

    def changes_of(self, macs: Collection[bytes], now_s: float) -> list[Changes]:
        """What leads to these stations, and nothing else: so many others there may be, it takes as long."""
        self._left_s |= dict.fromkeys(self.hosts.left.keys() & set(macs), now_s)
        if now_s >= self.settled_at_s and any(one.room.limit is not None for one in self.members.values()):
            return self.changes(now_s)  # others may have to make room
        stations = {mac: self.hosts.stations[mac] for mac in macs if mac in self.hosts.stations}
        tables = {name: one.table for name, one in self.members.items()}
        return desired.differences(tables, self._wanted(stations))

    def new_ways(self, level: Changes) -> dict[Place, set[bytes]]:
        """Ports to other switches by which a station's packets go from when ``level`` is done, and do not before: with its MAC."""
        return new_ways({name: one.table for name, one in self.members.items()}, self.topology(), level)

    def old_ways(self, mac: bytes) -> list[Place]:
        """Ports by which what is for a station that has moved still gets to where it was; none if nobody knows where that is."""
        station, old = self.hosts.stations.get(mac), self.hosts.left.get(mac)
        if station is None or old is None or not {station.place.switch, old.switch} <= self.members.keys():
            return []
        tables = {
            name: [self.members[name].table[key] for key in entries if key in self.members[name].table]
            for name, entries in self._wanted({mac: station}).items()
        }
        return old_ways(tables, self.topology(), mac, old, station.place)

    def astray(self, macs: Collection[bytes]) -> list[str]:
        """Switches that send what is for these stations another way than they should."""
        stations = {mac: self.hosts.stations[mac] for mac in macs if mac in self.hosts.stations}
        return [
            name
            for name, entries in self._wanted(stations).items()
            if any(
                (there := self.members[name].table.get(key)) is not None
                and there.instructions != one.flow.instructions
                for key, one in entries.items()
            )
        ]

    def _wanted(self, stations: Mapping[bytes, Station]) -> dict[str, dict[Key, Wanted]]:
        gateways = Gateways(GATEWAY_MAC) if self.gateways else None
        return desired.wanted(self.topology(), self.members, stations, gateways, self.hosts.left)

    def _fit(self, name: str, wanted: dict[str, dict[Key, Wanted]], keep: Set[bytes]) -> bool:
        """Leaves out of ``wanted`` what there is no room for; whether there is none for new entries beside old ones."""
        member, entries = self.members[name], wanted[name]
        limit = member.room.limit
        member.left_out = 0
        if limit is None:
            return False
        stay = sum(desired.station_of(one) in keep for one in member.table.values())
        wanted[name] = fit(entries, limit - stay, member.table, self.hosts.stations)
        member.left_out = len(entries) - len(wanted[name])
        return len(member.table.keys() | wanted[name].keys()) > limit

    def done(self, switch: str, changes: Iterable[Change]) -> None:
        """The switch has made them."""
        member = self.members.get(switch)
        if member is not None:
            member.table = desired.applied(member.table, changes)
            self.dirty = member.room.taken(len(member.table)) or self.dirty

    def full(self, switch: str, changes: Iterable[Change]) -> bool:
        """The switch had no room for them, and made none; False if that cannot be: they need none."""
        member = self.members.get(switch)
        new = sum(
            one.command is Command.ADD and member is not None and one.flow.place not in member.table
            for one in changes
        )
        if member is None or not new:
            return False
        member.room.refused(len(member.table), new)
        self.dirty = True
        return True

    def _adopt(self) -> None:
        """Stations that an earlier controller knew, of switches that had not connected to this one yet."""
        for name, member in self.members.items():
            if name not in self._adopted:
                self._adopted.add(name)
                adoption.everything(self.hosts, member.table.values(), self._out(name))

    def _out(self, name: str) -> adoption.Out:
        ends = self.links.ends()

        def place(port: int, bound: bool) -> Place | None:
            found = Place(name, port)
            return found if (self.places.outside(found) if bound else found not in ends) else None

        return place
