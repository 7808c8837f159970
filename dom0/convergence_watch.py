"""Follows an outgoing migration's progress and says when to stop the guest; the decision itself is :mod:`vmnet.convergence`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from vmnet import convergence
from vmnet.errors import VmnetError
from vmnet.hypervisor.domains import Domains


class ConvergenceWatch:
    """``tell(event, **fields)`` hears of the progress."""

    def __init__(self, domains: Domains, vm: str, max_downtime_ms: int, tell: Callable[..., None]) -> None:
        self._domains = domains
        self._vm = vm
        self._max_downtime_ms = max_downtime_ms
        self._tell = tell
        self._first_pass = asyncio.Event()
        self._pass_began = time.monotonic()
        self._dirty_bps: int | None = None
        self.processed_bytes = 0

    def pass_began(self) -> None:
        self._pass_began = time.monotonic()
        self._first_pass.set()

    async def until_switch(self) -> None:
        """Returns when the guest should stop. libvirt's errors end the watch: the migration's own failure follows."""
        await self._first_pass.wait()
        with contextlib.suppress(VmnetError):
            await self._domains.set_max_downtime(self._vm, convergence.QEMU_DOWNTIME_MS)
        while True:
            job = await self._domains.progress(self._vm)
            self.processed_bytes = job.memory_processed_bytes
            if self._dirty_bps is None:
                self._dirty_bps = await self._ask_dirty_rate()
            decision = convergence.decide(
                job, time.monotonic() - self._pass_began, self._dirty_bps, self._max_downtime_ms
            )
            self._tell(
                "progress",
                pass_number=job.passes,
                remaining_bytes=job.memory_remaining_bytes,
                processed_bytes=job.memory_processed_bytes,
                total_bytes=job.memory_total_bytes,
                bps=job.memory_bps,
                dirty_bps=job.dirty_bps or self._dirty_bps or 0,
                expected_downtime_ms=round(decision.expected_ms, 1),
            )
            if decision.switch:
                return
            await asyncio.sleep(decision.poll_s)

    async def _ask_dirty_rate(self) -> Any:
        try:
            return await self._domains.dirty_rate(self._vm)
        except VmnetError:
            return None
