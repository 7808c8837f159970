"""A router's links move beside its VM: in a migration's own time, apart from its other steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dom0.migration import Migration
from dom0.router.leaving import RouterLeaving
from vmnet.errors import VmnetError, WaitTimeoutError
from vmnet.machine import Event

_EXPECTED_S = 5.0


class LinksMove:
    """``expected``: the destination holds what arrives there directly. ``join``: stretched LANs stay reachable from here."""

    def __init__(
        self,
        migration: Migration,
        leaving: RouterLeaving,
        expected: asyncio.Event,
        join: Callable[[], Awaitable[None]],
    ) -> None:
        self._migration, self._leaving, self._expected, self._join = migration, leaving, expected, join
        self._moving: asyncio.Task[None] | None = None

    async def clone(self) -> None:
        try:
            await self._leaving.clone()
        except VmnetError as error:
            self._migration.post(Event.FAILED, error)

    def begin(self) -> None:
        """At once, beside all else: neighbours hear nothing of the VM until the destination speaks for it. Again: nothing."""
        if self._moving is None:
            self._moving = self._migration.spawn(self._move())

    async def moved(self) -> None:
        """If it has begun; also if it has failed."""
        if self._moving is not None:
            await asyncio.wait({self._moving})

    async def _move(self) -> None:
        migration = self._migration
        try:
            await asyncio.wait_for(self._expected.wait(), _EXPECTED_S)
            await self._join()
            await self._leaving.move()
        except TimeoutError:
            late = WaitTimeoutError("the destination did not get ready for the router's links")
            migration.post(Event.FAILED, late)
        except VmnetError as error:
            migration.post(Event.FAILED, error)
        except OSError as error:
            migration.post(Event.FAILED, VmnetError(f"cannot move the router's links: {error}"))
        else:
            if not self._leaving.ordered:
                migration.notes.append("the host was too busy to tell whether data was overtaken")
            migration.tell("links-moved")

    async def come_back(self, gone: bool) -> None:
        await self.moved()
        if not gone:
            await self._leaving.come_back()
