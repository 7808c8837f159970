"""A fabric in memory for the controller's core: switches with tables, wires, stations, and a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address

from controller_bridge import trace
from controller_bridge.core import desired, marks, neighbours
from controller_bridge.core.core import Core
from controller_bridge.core.member import Send
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Change, Command
from controller_bridge.openflow.match import Field
from controller_bridge.openflow.multipart import Port
from controller_bridge.topology import Place, Topology

KEY = b"k" * 32
GATEWAYS = frozenset({ip_address("10.1.0.254"), ip_address("10.2.0.254"), ip_address("fd01::fe")})


def mac(number: int) -> bytes:
    return bytes([0x52, 0x54, 0, 0, 1, number])


@dataclass
class Station:
    number: int
    place: Place
    address: str
    got: list[bytes] = field(default_factory=list)
    silent: bool = False

    @property
    def mac(self) -> bytes:
        return mac(self.number)


class Model:
    """``wires``: port -> port. A switch's tables outlive the controller; ``core`` may be replaced by another."""

    def __init__(
        self, switches: Iterable[str], wires: dict[Place, Place], edge_ports: Iterable[int] = (101, 102, 103)
    ) -> None:
        self.wires = {**wires, **{other: one for one, other in wires.items()}}
        self.ports = {
            name: sorted({place.port for place in self.wires if place.switch == name} | set(edge_ports))
            for name in switches
        }
        self.tables: dict[str, desired.Table] = {name: {} for name in self.ports}
        self.stations: list[Station] = []
        self.now_s = 1000.0
        self.done: list[Change] = []
        self.core = Core(KEY, GATEWAYS)
        self._ids = {name: number for number, name in enumerate(self.ports, 1)}

    def connect(self, *names: str) -> None:
        for name in names or self.ports:
            listed = [Port(number, mac(0), f"p{number}", 0, 0) for number in self.ports[name]]
            self._apply(name, self.core.base(self.tables[name].values()))
            flows = list(self.tables[name].values())
            self.deliver(self.core.switch_up(name, self._ids[name], listed, flows, self.now_s))

    def run(self, seconds: float) -> None:
        """Time passes; everything that is due happens."""
        end = self.now_s + seconds
        while True:
            self._update()
            at = self.core.next_s(self.now_s)
            if at >= end:
                self.now_s = end
                return
            self.now_s = max(at, self.now_s + 0.001)
            self.deliver(self.core.tick(self.now_s))

    def _update(self) -> None:
        while self.core.dirty and self.now_s >= self.core.settled_at_s:
            for level in self.core.changes(self.now_s):
                for switch, changes in level.items():
                    self._apply(switch, changes)
                    self.core.done(switch, changes)

    def _apply(self, switch: str, changes: list[Change]) -> None:
        for one in changes:
            there = self.tables[switch].get(one.flow.place)
            assert (one.command is Command.ADD) or there is not None, "what is not there is changed"
            assert there is None or there.cookie & marks.OWNER_MASK == marks.COOKIE, (
                "what others have put there is changed"
            )
            self.done.append(one)
        self.tables[switch] = desired.applied(self.tables[switch], changes)

    def deliver(self, sends: Iterable[Send]) -> None:
        """Out of a port: to the station there, or to the switch at the other end, by its table."""
        for one in sends:
            self._out(one.place, one.frame)

    def _out(self, place: Place, frame: bytes) -> None:
        if place in self.wires:
            self.arrive(self.wires[place], frame)
            return
        for station in self.stations:
            if station.place == place and not station.silent:
                station.got.append(frame)
                self._answer(station, frame)

    def _answer(self, station: Station, frame: bytes) -> None:
        """As a kernel does: to who asks for its address."""
        said = neighbours.read(frame)
        if (
            said is not None
            and said.asks == ip_address(station.address)
            and frame[:6] in (station.mac, neighbours.BROADCAST)
        ):
            assert said.asker is not None
            self.arrive(station.place, neighbours.answer(said.asks, station.mac, frame[6:12], said.asker))

    def arrive(self, place: Place, frame: bytes) -> None:
        """At a switch's port: its table decides; one that is empty drops it."""
        packet = _fields(frame)
        entry = trace.decides(list(self.tables[place.switch].values()), place.port, packet)
        ports = action.outputs(entry.instructions) if entry is not None else []
        for port in ports:
            if port == action.PORT_CONTROLLER:
                self.deliver(self.core.packet(place, frame, self.now_s))
            else:
                rewritten = action.sets(entry.instructions, Field.ETH_DST) if entry is not None else None
                self._out(Place(place.switch, port), (rewritten or frame[:6]) + frame[6:])

    def add(self, number: int, place: Place, address: str) -> Station:
        """It says hello, as a kernel does when its link comes up."""
        made = Station(number, place, address)
        self.stations.append(made)
        self.say(made)
        return made

    def say(self, station: Station, as_mac: bytes | None = None, address: str | None = None) -> None:
        """A gratuitous ARP, or neighbour advertisement; of another's addresses, if so told."""
        own = ip_address(address or station.address)
        source = as_mac or station.mac
        if own.version == 4:
            frame = neighbours.question(own, source, own)
        else:
            frame = neighbours.answer(own, source, bytes.fromhex("333300000001"), ip_address("ff02::1"))
        self.arrive(station.place, frame)

    def send(self, sender: Station, to_mac: bytes, payload: bytes = b"data") -> None:
        self.arrive(sender.place, to_mac + sender.mac + b"\x88\xb5" + payload)

    def topology(self) -> Topology:
        return Topology(self.ports, [(one, other) for one, other in self.wires.items() if one < other])

    def paths(self) -> dict[tuple[int, int], trace.Walk]:
        """From every station to every other, by the tables."""
        tables = {name: list(table.values()) for name, table in self.tables.items()}
        return {
            (one.number, other.number): trace.walk(
                tables, self.topology(), one.place, {Field.ETH_DST: other.mac}
            )
            for one in self.stations
            for other in self.stations
            if one is not other
        }


def _fields(frame: bytes) -> dict[int, bytes]:
    found = {Field.ETH_DST: frame[:6], Field.ETH_SRC: frame[6:12], Field.ETH_TYPE: frame[12:14]}
    if frame[12:14] == b"\x86\xdd" and len(frame) > 54:
        found |= {Field.IP_PROTO: frame[20:21], Field.IPV6_DST: frame[38:54]}
        if frame[20] == 58:
            found[Field.ICMPV6_TYPE] = frame[54:55]
    if frame[12:14] == b"\x08\x00" and len(frame) >= 34:
        found[Field.IPV4_DST] = frame[30:34]
    return dict(found)
