"""What stands in for a guest's taps (:mod:`dom0.dataplane.stand_in`) joins their bridges for a migration, and leaves them after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from dom0 import bridges
from dom0.migration import Migration
from vmnet.actions import Action, Kind
from vmnet.errors import VmnetError

LINGER_S: Final = 0.5
"""A switch's datapath follows its table in that time: 0.175 s was the most that was seen."""


class Stands(Protocol):
    """A guest's port that something can stand in for."""

    def make_stand_in(self) -> str:
        """The device's name."""


class StandIns:
    """``ports``, each with its bridge. They are needed for nothing but what is late: none is no reason to give up."""

    def __init__(self, migration: Migration, ports: Sequence[tuple[Stands, str]]) -> None:
        self._migration, self._ports = migration, ports
        self._joining: asyncio.Task[None] | None = None
        self._joined: list[tuple[str, str]] = []

    def join(self) -> None:
        """Does not wait."""
        self._joining = self._migration.spawn(self._join())

    async def _join(self) -> None:
        for port, bridge in self._ports:
            try:
                name = await asyncio.to_thread(port.make_stand_in)
                await self._migration.journal([Action(Kind.JOIN, name, bridge)])
                self._joined.append((name, bridge))
                await bridges.add_port(name, bridge)
            except (VmnetError, OSError) as error:
                self._migration.log.warning("nothing stands in on bridge %s: %s", bridge, error)

    async def leave(self, late: bool) -> None:
        """``late``: the guest has gone, or come, and a switch's late datapath may still send the old way for a moment."""
        if self._joining is None:
            return
        await asyncio.wait({self._joining})
        if late:
            await asyncio.sleep(LINGER_S)
        for name, bridge in self._joined:
            try:
                await bridges.leave(name, bridge)
            except VmnetError as error:
                self._migration.log.warning("%s is still a port of %s: %s", name, bridge, error)
