"""What stands in for a guest's taps (:mod:`dom0.dataplane.stand_in`) joins their bridges for a migration, and leaves them after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from dom0 import bridges
from dom0.dataplane import netdev
from dom0.dataplane.gate import Gate
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.stand_in import StandIn
from dom0.migration import Migration
from vmnet.actions import Action, Kind
from vmnet.errors import VmnetError

LINGER_S: Final = 0.5
"""A switch's datapath follows its table in that time: 0.175 s was the most that was seen."""


class Port(Protocol):
    """A guest's, that something can stand in for."""

    gate: Gate
    settings: PortSettings


class StandIns:
    """Of ``ports``, each with its bridge if it has one. They are for nothing but what is late: none is no reason to give up.

    ``before``: on a Linux bridge, what is for a guest that runs here goes by them from the beginning.
    """

    def __init__(
        self, migration: Migration, ports: Iterable[tuple[Port, str | None]], before: bool = False
    ) -> None:
        self._migration, self._before = migration, before
        self._ports = [(port, bridge) for port, bridge in ports if bridge]
        self._joining: asyncio.Task[None] | None = None
        self._joined: list[tuple[StandIn, str]] = []

    def join(self) -> None:
        """Does not wait."""
        self._joining = self._migration.spawn(self._join())

    async def _join(self) -> None:
        for port, bridge in self._ports:
            try:
                one = await asyncio.to_thread(StandIn, port.gate, port.settings)
                self._joined.append((one, bridge))
                place = await bridges.place_of(port.gate.tap, bridge)
                await self._migration.journal([Action(Kind.JOIN, one.name, str(place))])
                await bridges.add_port(one.name, place)
                # another bridge floods to the tap as well
                if self._before and netdev.is_linux_bridge_port(one.name):
                    await asyncio.to_thread(one.stand_before)
                    await asyncio.to_thread(bridges.pin, one.name, port.settings.mac.hex(":"))
            except (VmnetError, OSError) as error:
                self._migration.log.warning("nothing stands in on bridge %s: %s", bridge, error)

    async def leave(self, late: bool) -> None:
        """``late``: the guest has gone, or come, and a switch's late datapath may still send the old way for a moment."""
        if self._joining is None:
            return
        await asyncio.wait({self._joining})
        if late:
            await asyncio.sleep(LINGER_S)
        for one, bridge in self._joined:
            try:
                await bridges.leave(one.name, bridge)
            except VmnetError as error:
                self._migration.log.warning("%s is still a port of %s: %s", one.name, bridge, error)
            await asyncio.to_thread(one.close)
