"""Stations that are led from host to host by who may do so: the hosts' own daemons, each those of its own. Pure.

A host may lead a station that is at its own place. When it begins a move, it names the other host: as long as the move has not ended,
that one may lead the station as well, to itself or back; so may the first one when the station is at the other. Nobody else may, and
nobody when it has ended. Who that is stands in the station's entries (:mod:`controller_bridge.core.marks`), so that a controller that
is started anew knows it; the move's identifier does not, and is looked at only while it is known. A station that nobody has heard of
may be bound by any host at its own place, as it could by sending a packet. ``None`` as a caller may do everything: root here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controller_bridge.core.hosts import MOST_BOUND_AT_A_PORT, NOWHERE, Address, Hosts, Station
from controller_bridge.topology import Place
from vmnet.errors import RefusedError, UnavailableError


@dataclass(frozen=True)
class Order:
    """A VM's move, as it is asked for: ``id``, the hosts' names, and what is the VM's own.

    ``headers``: of frames that others have sent to it lately, from the Ethernet header on.
    """

    id: str
    source: str
    destination: str
    macs: tuple[bytes, ...]
    addresses: frozenset[Address] = frozenset()
    headers: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Bound:
    """``place``: where the stations are now; ``left_out``: addresses that they did not get; ``changed``: whether anything did."""

    place: Place
    left_out: frozenset[Address] = frozenset()
    changed: bool = False


@dataclass
class Moves:
    """``place``: a host's; None if it is not known. ``numbers``: the hosts', for marks. ``reserved``: addresses nobody may have."""

    hosts: Hosts
    place: Callable[[str], Place | None]
    numbers: dict[str, int]
    reserved: Callable[[Address], bool]

    # RefusedError or UnavailableError, and then nothing has changed

    def prepare(self, caller: str | None, order: Order) -> Bound:
        """The stations are bound at the source, and the destination may lead them."""
        self._known_ends(caller, order)
        for mac in order.macs:
            self._check(caller, mac, order, order.source)
            known = self.hosts.stations.get(mac)
            if known is not None and known.place != self._at(order.source):
                raise RefusedError(f"{mac.hex(':')} is not at {order.source}: {self._whereabouts(known)}")
        return self._bind(order, order.source, self.numbers[order.destination])

    def cut_over(self, caller: str | None, order: Order) -> Bound:
        """They are bound at the destination; the source may take them back."""
        self._known_ends(caller, order)
        if self._all_at(order, order.destination):
            return Bound(self._at(order.destination))
        for mac in order.macs:
            self._check(caller, mac, order, order.destination)
        return self._bind(order, order.destination, self.numbers[order.source])

    def finish(self, caller: str | None, order: Order) -> Bound:
        """They are the destination's alone. They have to be there already."""
        self._known_ends(caller, order)
        if not self._all_at(order, order.destination):
            raise RefusedError(
                f"not all of {order.id}'s stations are at {order.destination}", "cut_over comes before finish"
            )
        return self._end(caller, order, order.destination)

    def roll_back(self, caller: str | None, order: Order) -> Bound:
        """They are the source's alone. One that was not bound and has never left it stays so."""
        self._known_ends(caller, order)
        return self._end(caller, order, order.source)

    def fence(self, caller: str | None, order: Order) -> None:
        """What they have left may be fenced off. They have to be at the destination."""
        self._known_ends(caller, order)
        if not self._all_at(order, order.destination):
            raise RefusedError(
                f"not all of {order.id}'s stations are at {order.destination}", "cut_over comes before fence"
            )

    def release(self, caller: str | None, macs: Iterable[bytes]) -> list[bytes]:
        """They may be learned elsewhere again; those that were bound."""
        found = [mac for mac in macs if (one := self.hosts.stations.get(mac)) is not None and one.bound]
        for mac in found:
            station = self.hosts.stations[mac]
            if caller is not None and station.place != self.place(caller):
                raise RefusedError(f"{mac.hex(':')} is not at {caller}: {self._whereabouts(station)}")
        for mac in found:
            self.hosts.release(mac)
        return found

    def forget(self, caller: str | None, macs: Iterable[bytes]) -> list[bytes]:
        """As if they had never been heard, with their addresses; those that were known. RefusedError if any is bound: none goes."""
        if caller is not None:
            raise RefusedError("only root on the controller's machine makes it forget stations")
        found = [mac for mac in macs if mac in self.hosts.stations]
        for mac in found:
            if self.hosts.stations[mac].bound:
                raise RefusedError(
                    f"{mac.hex(':')} is bound: {self._whereabouts(self.hosts.stations[mac])}",
                    "release it first: vmnet controller release",
                )
        for mac in found:
            self.hosts.forget(mac)
            self.hosts.claims.pop(mac, None)
        return found

    def _end(self, caller: str | None, order: Order, host: str) -> Bound:
        known = [self.hosts.stations.get(mac) for mac in order.macs]
        if all(one is not None and one.place == self._at(host) and not one.mark.partner for one in known):
            return Bound(self._at(host))
        for mac in order.macs:
            self._check(caller, mac, order, host)
        return self._bind(order, host, 0)

    def _bind(self, order: Order, host: str, partner: int) -> Bound:
        place = self._at(host)
        other = self.place(order.source if host == order.destination else order.destination)
        new = [mac for mac in order.macs if not self._is_bound_at(mac, place)]
        if new and self.hosts.bound_at(place) + len(new) > MOST_BOUND_AT_A_PORT:
            raise RefusedError(f"{host} has {MOST_BOUND_AT_A_PORT} stations already", "release some of them")
        before = [self.hosts.stations.get(mac) for mac in order.macs]
        usable = frozenset(one for one in order.addresses if not self.reserved(one))
        left = order.addresses - usable
        # which of several interfaces has which address is not said: they keep what they have been heard to have
        mine = usable if len(order.macs) == 1 else frozenset[Address]()
        for mac in order.macs:
            left |= self.hosts.bind(mac, place, mine, partner, order.id, other)
        after = [self.hosts.stations.get(mac) for mac in order.macs]
        return Bound(place, left, changed=before != after)

    def _known_ends(self, caller: str | None, order: Order) -> None:
        if order.source == order.destination:
            raise RefusedError(f"{order.source} is both where it is to come from and where to go")
        for host in (order.source, order.destination):
            if host not in self.numbers:
                raise RefusedError(
                    f"the controller does not know where host {host!r} is",
                    f'write {host} = "SWITCH:PORT" under [hosts] of its settings',
                )
        if caller is not None and caller not in (order.source, order.destination):
            raise RefusedError(f"{caller} may not move what goes from {order.source} to {order.destination}")

    def _at(self, host: str) -> Place:
        place = self.place(host)
        if place is None:
            raise UnavailableError(
                f"the port of host {host!r} is not there: its switch is not connected, or has none of that name"
            )
        return place

    def _all_at(self, order: Order, host: str) -> bool:
        return all(self._is_bound_at(mac, self._at(host)) for mac in order.macs)

    def _is_bound_at(self, mac: bytes, place: Place) -> bool:
        known = self.hosts.stations.get(mac)
        return known is not None and known.bound and known.place == place

    def _check(self, caller: str | None, mac: bytes, order: Order, target: str) -> None:
        """RefusedError if ``caller`` may not have it at ``target``."""
        known = self.hosts.stations.get(mac)
        if caller is None or (known is not None and known.place == self.place(caller)):
            return
        if known is None:
            if caller != target:
                raise RefusedError(
                    f"{mac.hex(':')} is not known", f"it is for {target} to say that it is there"
                )
            return
        if known.mark.partner == self.numbers.get(caller) and known.move in ("", order.id):
            return
        if known.place == NOWHERE:
            raise UnavailableError(
                f"where {mac.hex(':')} is now is not known yet",
                "its switch has not connected to the controller",
            )
        raise RefusedError(f"{mac.hex(':')} is not {caller}'s to move: {self._whereabouts(known)}")

    def _whereabouts(self, known: Station) -> str:
        host = next((name for name in sorted(self.numbers) if self.place(name) == known.place), None)
        if host is not None:
            return f"it is at {host}"
        return (
            f"it is at {known.place.switch} port {known.place.port}"
            if known.place != NOWHERE
            else "nobody knows where"
        )
