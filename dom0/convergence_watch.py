"""Follows an outgoing migration's progress and says when to stop the guest; the decision itself is :mod:`vmnet.convergence`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from vmnet import convergence
from vmnet.convergence import Decision, Looks
from vmnet.errors import VmnetError
from vmnet.hypervisor.domains import Domains
from vmnet.hypervisor.events import JobProgress

_SHORTEST_PASS_S: Final = 0.02


class ConvergenceWatch:
    """``tell(event, **fields)`` hears of the progress; ``near()`` is called when the next look may be the last."""

    def __init__(
        self,
        domains: Domains,
        vm: str,
        driver: str,
        max_downtime_ms: int,
        tell: Callable[..., None],
        near: Callable[[], None],
    ) -> None:
        self._domains = domains
        self._vm = vm
        self._max_downtime_ms = max_downtime_ms
        self._own_downtime_ms = convergence.qemu_downtime_ms(driver)
        self._tell = tell
        self._near = near
        self._new_pass = asyncio.Event()
        self._pass_began = time.monotonic()
        self._told_ms: int | None = None
        self._looks = Looks()
        self._fitted_in: int | None = None
        self.processed_bytes = 0

    def pass_began(self) -> None:
        now = time.monotonic()
        if self.processed_bytes and not self._looks.first_pass_bps:
            first_bps = self.processed_bytes / max(now - self._pass_began, _SHORTEST_PASS_S)
            self._looks = replace(self._looks, first_pass_bps=first_bps)
        self._pass_began = now
        self._new_pass.set()

    async def until_switch(self) -> None:
        """Returns when the guest should stop. libvirt's errors end the watch: the migration's own failure follows."""
        await self._let_qemu_stop_at(convergence.QEMU_WAITS_MS)  # libvirt's job is there, QEMU's not yet
        await self._new_pass.wait()
        await self._let_qemu_stop_at(convergence.QEMU_WAITS_MS)  # if it was too early before
        while True:
            asked = time.monotonic()
            job = await self._domains.progress(self._vm)
            self.processed_bytes = job.memory_processed_bytes
            decision = self._decide(job, time.monotonic() - asked)
            self._tell(
                "progress",
                took_ms=round((time.monotonic() - asked) * 1000, 2),
                passes_missed=self._looks.missed,
                pass_number=job.passes,
                remaining_bytes=job.memory_remaining_bytes,
                processed_bytes=job.memory_processed_bytes,
                total_bytes=job.memory_total_bytes,
                bps=job.memory_bps,
                dirty_bps=job.dirty_bps,
                expected_downtime_ms=round(decision.expected_ms, 1),
            )
            if decision.switch:
                return
            if decision.near:
                self._near()
            if job.memory_bps and job.passes > 1:
                await self._let_qemu_stop_at(self._own_downtime_ms)
            self._new_pass.clear()
            with contextlib.suppress(TimeoutError):  # a new pass is worth a look at once
                await asyncio.wait_for(self._new_pass.wait(), decision.poll_s)

    def _decide(self, job: JobProgress, took_s: float) -> Decision:
        missed = self._looks.missed
        if self._fitted_in is not None and self._fitted_in < job.passes:
            missed, self._fitted_in = missed + 1, None
        self._looks = replace(self._looks, took_s=took_s, missed=missed)
        pass_s = time.monotonic() - self._pass_began
        decision = convergence.decide(job, pass_s, self._max_downtime_ms, self._own_downtime_ms, self._looks)
        if decision.fits:
            self._fitted_in = job.passes
        return decision

    async def hold_qemu_back(self) -> None:
        """The guest is about to be stopped: QEMU is not to do so before it has taken what it has."""
        await self._let_qemu_stop_at(convergence.QEMU_WAITS_MS)

    async def _let_qemu_stop_at(self, downtime_ms: int) -> None:
        if self._told_ms != downtime_ms:
            with contextlib.suppress(VmnetError):
                await self._domains.set_max_downtime(self._vm, downtime_ms)
                self._told_ms = downtime_ms
