"""The rerouter ``ovn``: a VM's ports are on both chassis while it moves, and on one again afterwards (OVN 22.06 and later)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from controller_bridge.rerouters import ovn_plan as plan
from controller_bridge.rerouters import ovn_tables as tables
from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.ovn_plan import Change, Ends, Port
from controller_bridge.rerouters.ovn_settings import OvnSettings, parse
from controller_bridge.rerouters.replica import Replica, use_tls
from vmnet.errors import VmnetError, WaitTimeoutError
from vmnet.store.job import Db

Find = Callable[[Db], list[Port]]
_LOOK: Final = "see that ovn-northd and that chassis' ovn-controller run, and that the VM's port is there (its interface's iface-id)"
_GONE: Final = "all else is done; if that host is gone for good: `ovn-sbctl chassis-del` it"


class OvnRerouter:
    """A :class:`~controller_bridge.rerouters.base.Rerouter`. It connects when it is first used."""

    def __init__(self, settings: OvnSettings) -> None:
        self._settings = settings
        self._opening = asyncio.Lock()
        self._open: tuple[Replica, Replica] | None = None

    async def prepare(self, move: Move) -> None:
        """Each port is on both chassis, and both have confirmed all of it; the destination's drops (``activation = "rarp"``).

        The destination takes the port when the VM's interface is there: this waits for it."""
        north, south = await self._replicas()
        ends = self._ends(move)
        both = [*ends, *self._settings.confirm]
        places = await south.run(tables.places)
        await south.run(lambda db: plan.check_known(tables.confirmed(db), both))

        def change(port: Port) -> Change:
            place = places.get(port.name, plan.NOWHERE)
            return plan.prepared(port, move.id, ends, place, self._settings.activation)

        names = await north.run(lambda db: tables.change(db, self._ports(db, move), change))
        await south.until(
            lambda db: plan.not_on_both(
                tables.places(db), dict.fromkeys(names, ends.source), ends.destination
            ),
            _LOOK,
        )
        await self._confirm(both)

    async def cut_over(self, move: Move) -> None:
        """``at_cut_over = "shrink"``: the destination opens, and when it has confirmed that, it becomes the only one. What is sent
        before it has opened (some 10 ms) goes to the source alone; from then until the source is left (some 15 ms) all goes to both.

        ``"none"``: OVN is told nothing. All goes to the source alone until the guest's RARP comes out of the destination's port, and
        to both from then until :meth:`finish`. What the guest sends there before its RARP is dropped.
        """
        if self._settings.at_cut_over == "none":
            north, _ = await self._replicas()
            await north.run(lambda db: [plan.of_move(one, move.id) for one in self._ports(db, move)])
            return
        target = self._ends(move).destination
        await self._lead(self._by_mac(move), target, lambda port: plan.shrunk(port, move.id, target))

    async def finish(self, move: Move) -> None:
        """At the destination alone: as by :meth:`cut_over`, if that has not done it. ``requested-chassis`` stays there.

        WaitTimeoutError also if all is done but that the source's host does not let go of the port, as one that is dead."""
        _, south = await self._replicas()
        ends = self._ends(move)
        names = await self._lead(
            self._by_mac(move), ends.destination, lambda port: plan.finished(port, move.id, ends)
        )
        await self._confirm([ends.destination, *self._settings.confirm])
        await south.until(lambda db: plan.not_left(tables.places(db), names), _GONE)

    async def roll_back(self, move: Move) -> None:
        """First to the source alone, then what was there before: that may have been no chassis in particular.

        WaitTimeoutError also if all is put back and the destination's host does not let go of the port, as one that is dead."""
        north, south = await self._replicas()
        source = self._ends(move).source

        def of_move(db: Db) -> list[Port]:
            return plan.moved_by(tables.ports(db), move.id, move.macs)

        names = await self._lead(of_move, source, lambda port: plan.shrunk(port, move.id, source))
        if not names:
            return
        await self._confirm([source, *self._settings.confirm])
        await north.run(lambda db: tables.change(db, of_move(db), lambda port: plan.restored(port, move.id)))
        await south.until(lambda db: plan.not_left(tables.places(db), names), _GONE)

    async def _lead(self, find: Find, target: str, last: tables.Decide) -> list[str]:
        """To ``target`` alone, without a moment at which nobody receives. The ports' names.

        It opens first, then becomes the main chassis, and then the only one. In one step less, the old main chassis may let go before
        the new one takes the port: measured, 6 to 8 ms in which it is nowhere, two times of five."""
        north, south = await self._replicas()
        places = await south.run(tables.places)

        def look(db: Db) -> dict[str, str]:
            ports = find(db)
            for one in ports:
                last(one)  # it may be refused: before anything has changed
            return plan.leaders(ports, places, target)

        main = await north.run(look)
        if main:

            def only(db: Db) -> list[Port]:
                return [one for one in find(db) if one.name in main]

            await north.run(
                lambda db: tables.change(db, only(db), lambda port: plan.both(port, main[port.name], target))
            )
            await south.until(lambda db: plan.not_on_both(tables.places(db), main, target), _LOOK)
            await self._confirm([target])
            await north.run(
                lambda db: tables.change(db, only(db), lambda port: plan.both(port, target, main[port.name]))
            )
            await self._changed_places(main, target)
        names = await north.run(lambda db: tables.change(db, find(db), last))
        await south.until(lambda db: plan.not_at(tables.places(db), names, target), _LOOK)
        return names

    async def _changed_places(self, main: Mapping[str, str], target: str) -> None:
        """Each port's old main chassis has become its additional one, for good: until it has confirmed that it may let go once more,
        by what it knew before. One that is dead neither confirms nor lets go."""
        _, south = await self._replicas()

        def missing(db: Db) -> str:
            return plan.changing_places(tables.places(db), main, target)

        try:
            await south.until(missing, _LOOK)
            await self._confirm([target, *main.values()])
            await south.until(missing, _LOOK)
        except WaitTimeoutError:
            await south.until(lambda db: plan.not_at(tables.places(db), main, target), _LOOK)

    async def close(self) -> None:
        if self._open is not None:
            await asyncio.gather(*(one.close() for one in self._open))

    async def _replicas(self) -> tuple[Replica, Replica]:
        settings = self._settings
        async with self._opening:
            if self._open is None:
                limit_s = settings.limit_s
                north = await Replica.open(
                    "OVN's northbound database",
                    settings.northbound,
                    "OVN_Northbound",
                    tables.NORTHBOUND,
                    limit_s,
                )
                try:
                    south = await Replica.open(
                        "OVN's southbound database",
                        settings.southbound,
                        "OVN_Southbound",
                        tables.SOUTHBOUND,
                        limit_s,
                    )
                except VmnetError:
                    await north.close()
                    raise
                self._open = north, south
            return self._open

    def _ends(self, move: Move) -> Ends:
        return Ends(self._settings.chassis_of(move.source), self._settings.chassis_of(move.destination))

    def _ports(self, db: Db, move: Move) -> list[Port]:
        return plan.find(tables.ports(db), move.macs, self._settings.ports)

    def _by_mac(self, move: Move) -> Find:
        return lambda db: self._ports(db, move)

    async def _confirm(self, chassis: Sequence[str]) -> None:
        """As Neutron tests it: a new number northbound comes back from each chassis when it has done all that came before."""
        north, south = await self._replicas()
        wanted = await north.run(tables.next_configuration)
        await south.until(lambda db: plan.unconfirmed(tables.confirmed(db), wanted, chassis), _LOOK)


def opener(settings: Mapping[str, Any]) -> OvnRerouter:
    """The entry point. ConfigError if a setting is wrong."""
    made = parse(settings)
    if made.tls is not None:
        use_tls(*made.tls)
    return OvnRerouter(made)
