"""libvirt's part in a VM's leaving: its migration, the guest's stop, and the way back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from vmnet.errors import NotFoundError, RefusedError, UnavailableError, VmnetError, WaitTimeoutError
from vmnet.hypervisor.definition import Definition
from vmnet.hypervisor.domains import CutOffError, Domains

_MIGRATE_S = 24 * 3600
DECIDE_S = 30.0
AWAY_S = 600.0
"""So long libvirt may be away: one that is asked to end finishes the migration first."""
_ASK_AGAIN_S = 0.05
_LOOK_S = 0.2
_WORD_S = 1.0
_ANY_DOWNTIME_MS = 60_000
_NO_ANSWER = (UnavailableError, WaitTimeoutError)


class Outgoing:
    """``vm`` is its uuid. What libvirt's events have said meanwhile is asked for by callbacks."""

    def __init__(self, domains: Domains, vm: str) -> None:
        self._domains = domains
        self._vm = vm
        self._migrating: asyncio.Task[Any] | None = None
        self._suspended = False
        self.cut_off = False
        """The call for the migration ended, perhaps because libvirt went away: the migration may go on."""

    def begun_by(self, task: asyncio.Task[Any]) -> None:
        """``task`` runs :meth:`migrate`. To be said at once: an abort may come before the task's first step."""
        self._migrating = task

    async def migrate(self, uri: str, migrate_uri: str | None, definition: Definition) -> None:
        """Returns when libvirt has finished; its errors are raised."""
        try:
            await self._domains.migrate(self._vm, uri, migrate_uri, definition, _MIGRATE_S)
        except CutOffError:
            self.cut_off = True
            raise

    async def suspend(self, stopped: Callable[[], bool]) -> None:
        """Stop the guest, unless QEMU has."""
        self._suspended = True
        if stopped():
            return
        try:
            await self._domains.suspend(self._vm)
        except RefusedError:
            if not stopped():  # else QEMU was quicker
                raise
        # nothing changes any more: QEMU need not look again, pass after pass
        with contextlib.suppress(VmnetError):
            await self._domains.set_max_downtime(self._vm, _ANY_DOWNTIME_MS)

    async def abort(
        self, gone: Callable[[], bool], stays: Callable[[], None], limit_s: Callable[[], float]
    ) -> None:
        """Ask libvirt to give up, and wait until it has decided where the guest is. WaitTimeoutError if it does not.

        ``stays`` is called as soon as it has taken the request, and before the destination has removed anything. ``limit_s``: how
        long to wait, as far as is known by now.
        """
        began = time.monotonic()
        while not gone() and await self.active():
            with contextlib.suppress(*_NO_ANSWER, RefusedError):
                await self._domains.abort_job(self._vm)
                stays()
            if time.monotonic() - began > limit_s():
                raise WaitTimeoutError(f"libvirt did not end the migration within {limit_s():g} s")
            await asyncio.sleep(_ASK_AGAIN_S)  # libvirt has no event for "no job any more"

    async def active(self) -> bool:
        """Whether libvirt is migrating the VM, or cannot be asked now."""
        if self._migrating is not None and not self._migrating.done():
            return True
        if self._migrating is not None and not self.cut_off:
            return False
        try:
            return await self._job()
        except _NO_ANSWER:
            return True

    async def _job(self) -> bool:
        try:
            return (await self._domains.progress(self._vm)).active
        except (NotFoundError, RefusedError):
            return False

    async def _is_here(self) -> bool:
        try:
            await self._domains.find(self._vm)
        except NotFoundError:
            return False
        return True

    async def is_running_here(self) -> bool:
        """As libvirt says; False if it says nothing."""
        try:
            return (await self._domains.find(self._vm)).running
        except VmnetError:
            return False

    async def has_left(self, runs_there: Callable[[], bool]) -> bool:
        """Whether the VM is no longer here: once libvirt can be asked again, and has ended the migration.

        WaitTimeoutError if libvirt does not answer within ten minutes, or does not remove a VM that ``runs_there``.
        """
        deadline, was_away = time.monotonic() + AWAY_S, False
        while time.monotonic() < deadline:
            try:
                job = await self._job()  # first: without a job the VM does not leave between the two
                here = await self._is_here()
            except (*_NO_ANSWER, RefusedError):
                was_away = True
            else:
                if not here:
                    return True
                if job:
                    deadline = time.monotonic() + AWAY_S
                elif was_away:  # the other side's word may be on its way
                    was_away = False
                    await asyncio.sleep(_WORD_S)
                elif not runs_there():
                    return False
            await asyncio.sleep(_LOOK_S)
        raise WaitTimeoutError(f"libvirt did not say within {AWAY_S:g} s what became of the migration")

    async def resume(self) -> None:
        """If it was we who stopped the guest, and it stands still."""
        if self._suspended and not (await self._domains.find(self._vm)).running:
            await self._domains.resume(self._vm)
