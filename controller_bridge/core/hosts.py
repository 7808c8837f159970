"""Who is behind which port of the fabric's edge, by what they send; and who is believed if two say the same. Pure.

A station is believed where it speaks first. If its address is then heard at another port, it may have moved, or somebody lies: the old
port is asked (ARP, neighbour solicitation), and only if nobody answers there in time the station has moved. One that is *bound* (a VM
whose place its host's daemon has told) moves only when that says so (:mod:`controller_bridge.core.moves`). Addresses likewise
(:mod:`controller_bridge.core.address_claims`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from controller_bridge.core import marks
from controller_bridge.core.address_claims import AddressClaims
from controller_bridge.core.marks import NEVER, Mark
from controller_bridge.topology import Place

Address = IPv4Address | IPv6Address
ASKED_S: Final = 0.3
"""So long the old port has to answer before a station is believed to have moved."""
MOST_ADDRESSES: Final = 16
MOST_STATIONS: Final = 50_000
MOST_AT_A_PORT: Final = 512
MOST_BOUND_AT_A_PORT: Final = 4096
NOWHERE: Final = Place("", 0)
"""Of a bound station: the switch that it is at has not connected yet since this controller was started."""


@dataclass(frozen=True)
class Station:
    """``mark``: as in the cookies of its entries. ``move``: the move by which it was bound, if that is still known."""

    place: Place
    addresses: frozenset[Address] = frozenset()
    mark: Mark = NEVER
    move: str = ""

    @property
    def bound(self) -> bool:
        return self.mark.bound


@dataclass(frozen=True)
class Claim:
    """Somebody at ``place`` says since ``since_s`` that it is this station."""

    place: Place
    since_s: float


@dataclass(frozen=True)
class Heard:
    """What came of something that was heard.

    ``ask``: the place to be asked whether the station is still there. ``contested``: an address whose owner is to be asked for it.
    """

    changed: bool = False
    ask: Place | None = None
    refused: str = ""
    contested: Address | None = None


_NOTHING: Final = Heard()


@dataclass
class Hosts:
    """``stations``: by MAC address. ``left``: the other place of one that moves, or just has."""

    stations: dict[bytes, Station] = field(default_factory=dict)
    left: dict[bytes, Place] = field(default_factory=dict)
    claims: dict[bytes, Claim] = field(default_factory=dict)
    contested: AddressClaims = field(default_factory=AddressClaims)
    _owners: dict[Address, bytes] = field(default_factory=dict)
    _before: dict[bytes, Place] = field(default_factory=dict)
    """Where one that is bound was before."""
    _numbers: Counter[Place] = field(default_factory=Counter)
    """Of stations at each place: a guest may send from a new address with every packet, and they are not counted for each."""

    def heard(self, mac: bytes, address: Address | None, place: Place, now_s: float) -> Heard:
        """``mac`` sent something at ``place``, and said that it has ``address`` (None if it said nothing of addresses)."""
        if mac[0] & 1 or not any(mac):
            return Heard(refused="a group address as a sender")
        known = self.stations.get(mac)
        if known is None:
            return self._first(mac, address, place, now_s)
        if known.place == place:
            self.claims.pop(mac, None)
            return _NOTHING if address is None else self._says_it_has(mac, known, address, now_s)
        if self.has_left(mac, place):
            return _NOTHING  # it sent that before it went
        if known.bound:
            return Heard(refused=f"{mac.hex(':')} is bound to another place")
        claim = self.claims.get(mac)
        if claim is None or claim.place != place:
            self.claims[mac] = Claim(place, now_s)
            return Heard(ask=known.place)
        return Heard()

    def has_left(self, mac: bytes, place: Place) -> bool:
        """It was there until just now: what it sent there may still come."""
        return place == self._before.get(mac) == self.left.get(mac)

    def arrived(self, mac: bytes) -> bool:
        """Nothing of or for it is at its other place any more; whether it had one."""
        self._before.pop(mac, None)
        return self.left.pop(mac, None) is not None

    def _first(self, mac: bytes, address: Address | None, place: Place, now_s: float) -> Heard:
        if len(self.stations) >= MOST_STATIONS or self._numbers[place] >= MOST_AT_A_PORT:
            return Heard(refused="more stations than there is room for")
        station = Station(place)
        self._set(mac, station)
        more = self._says_it_has(mac, station, address, now_s) if address is not None else _NOTHING
        return replace(more, changed=True)

    def _says_it_has(self, mac: bytes, known: Station, address: Address, now_s: float) -> Heard:
        if address in known.addresses:
            self.contested.contradicted(address)
            return _NOTHING
        if self.owner(address) is not None:
            asks = not self._is_bounds(address, mac) and self.contested.made(address, mac, now_s)
            return Heard(refused=f"{address} belongs to another station", contested=address if asks else None)
        if len(known.addresses) >= MOST_ADDRESSES:
            return _NOTHING
        self.put(mac, replace(known, addresses=known.addresses | {address}))
        return Heard(changed=True)

    def owner(self, address: Address) -> bytes | None:
        """The MAC address of who has it."""
        return self._owners.get(address)

    def put(self, mac: bytes, station: Station) -> None:
        """It is so from now on. An address that was another's is that one's no more."""
        self.forget(mac)
        self._set(mac, station)
        for address in station.addresses:
            other = self._owners.get(address)
            if other is not None:
                known = self.stations[other]
                self._set(other, replace(known, addresses=known.addresses - {address}))
            self._owners[address] = mac

    def _set(self, mac: bytes, station: Station) -> None:
        self._remove(mac)
        self.stations[mac] = station
        self._numbers[station.place] += 1

    def _remove(self, mac: bytes) -> Station | None:
        known = self.stations.get(mac)
        if known is not None:
            self._numbers[known.place] -= 1
            if not self._numbers[known.place]:
                del self._numbers[known.place]
        return known

    def forget(self, mac: bytes) -> None:
        known = self._remove(mac)
        self.stations.pop(mac, None)
        for address in known.addresses if known is not None else ():
            if self._owners.get(address) == mac:
                del self._owners[address]

    def _goes_over(self, address: Address, mac: bytes) -> None:
        """Its owner has not answered for it. Whatever has happened meanwhile: nothing is taken from one that is bound."""
        station = self.stations.get(mac)
        if station is None or self._is_bounds(address, mac):
            return
        if len(station.addresses) < MOST_ADDRESSES:
            self.put(mac, replace(station, addresses=station.addresses | {address}))

    def due(self, now_s: float) -> bool:
        """Claims that nobody has contradicted in time come true; whether there were any."""
        addresses = self.contested.take_due(now_s)
        for address, mac in addresses:
            self._goes_over(address, mac)
        ripe = [mac for mac, claim in self.claims.items() if now_s - claim.since_s >= ASKED_S]
        for mac in ripe:
            self.put(mac, replace(self.stations[mac], place=self.claims.pop(mac).place))
        return bool(ripe or addresses)

    def next_due_s(self) -> float | None:
        moves = min((claim.since_s + ASKED_S for claim in self.claims.values()), default=None)
        addresses = self.contested.next_due_s()
        return min((one for one in (moves, addresses) if one is not None), default=None)

    def bind(
        self,
        mac: bytes,
        place: Place,
        addresses: frozenset[Address] = frozenset(),
        partner: int = 0,
        move: str = "",
        other: Place | None = None,
    ) -> frozenset[Address]:
        """Told by who knows: it is there from now on, and nowhere else whatever is heard. Again: nothing.

        ``other``: where it may go, or back to.

        The addresses that it does not get, because they are those of another that is bound, or too many.
        """
        known = self.stations.get(mac, Station(place))
        self.claims.pop(mac, None)
        free = {one for one in addresses if not self._is_bounds(one, mac)} - known.addresses
        usable = frozenset(sorted(free, key=str)[: max(0, MOST_ADDRESSES - len(known.addresses))])
        if known.place not in (place, NOWHERE):
            self._before[mac] = self.left[mac] = known.place
        if other is not None and other != place:
            self.left[mac] = other
        same = known.place == place and known.bound and known.mark.partner == partner
        mark = known.mark if same else Mark(True, marks.following(known.mark.generation), partner)
        self.put(mac, Station(place, known.addresses | usable, mark, move))
        return addresses - usable - known.addresses

    def _is_bounds(self, address: Address, mac: bytes) -> bool:
        """Whether it is that of a station that is bound, and not ``mac``."""
        owner = self.owner(address)
        return owner not in (None, mac) and self.stations[owner].bound

    def release(self, mac: bytes) -> None:
        """It is where it is, but may be learned elsewhere again."""
        known = self.stations[mac]
        if known.bound:
            self.put(mac, replace(known, mark=Mark(False, marks.following(known.mark.generation)), move=""))

    def bound_at(self, place: Place) -> int:
        return sum(one.bound and one.place == place for one in self.stations.values())

    def port_lost(self, place: Place) -> bool:
        """A port went down: who claimed to have left it has; the others may come back."""
        gone = [mac for mac, claim in self.claims.items() if self.stations[mac].place == place]
        for mac in gone:
            self.put(mac, replace(self.stations[mac], place=self.claims.pop(mac).place))
        return bool(gone)

    def became_link(self, places: Set[Place]) -> bool:
        """Behind these ports are switches: who was learned there is somewhere else."""
        gone = [mac for mac, one in self.stations.items() if one.place in places and not one.bound]
        for mac in gone:
            self.forget(mac)
            self.claims.pop(mac, None)
        return bool(gone)
