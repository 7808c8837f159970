"""libvirt's part in a VM's leaving: its migration, the guest's stop, and the way back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from vmnet.errors import NotFoundError, RefusedError, UnavailableError, VmnetError, WaitTimeoutError
from vmnet.hypervisor.domains import Domains

_MIGRATE_S = 24 * 3600
_DECIDE_S = 30.0
_ASK_AGAIN_S = 0.05
_ANY_DOWNTIME_MS = 60_000


class Outgoing:
    """``vm`` is its uuid. What libvirt's events have said meanwhile is asked for by callbacks."""

    def __init__(self, domains: Domains, vm: str) -> None:
        self._domains = domains
        self._vm = vm
        self._migrating: asyncio.Task[Any] | None = None
        self._suspended = False

    def begun_by(self, task: asyncio.Task[Any]) -> None:
        """``task`` runs :meth:`migrate`. To be said at once: an abort may come before the task's first step."""
        self._migrating = task

    async def migrate(self, uri: str, migrate_uri: str | None) -> None:
        """Returns when libvirt has finished; its errors are raised."""
        await self._domains.migrate(self._vm, uri, migrate_uri, _MIGRATE_S)

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

    async def abort(self, gone: Callable[[], bool], stays: Callable[[], None]) -> None:
        """Ask libvirt to give up, and wait until it has decided where the guest is. WaitTimeoutError if it does not.

        ``stays`` is called as soon as it has taken the request, and before the destination has removed anything.
        """
        deadline = time.monotonic() + _DECIDE_S
        while not gone() and await self.active():
            with contextlib.suppress(RefusedError, UnavailableError):
                await self._domains.abort_job(self._vm)
                stays()
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"libvirt did not end the migration within {_DECIDE_S:g} s")
            await asyncio.sleep(_ASK_AGAIN_S)  # libvirt has no event for "no job any more"

    async def active(self) -> bool:
        """Whether libvirt is migrating the VM."""
        if self._migrating is not None:
            return not self._migrating.done()
        try:
            return (await self._domains.progress(self._vm)).active
        except (NotFoundError, RefusedError):
            return False

    async def resume(self) -> None:
        """If it was we who stopped the guest, and it stands still."""
        if self._suspended and not (await self._domains.find(self._vm)).running:
            await self._domains.resume(self._vm)
