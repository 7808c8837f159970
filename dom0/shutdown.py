"""What becomes of migrations when the daemon is asked to end: one that went on without it would lose what comes in the downtime."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from dom0.migration import Migration
from dom0.source import SourceMigration
from vmnet.errors import UnavailableError, VmnetError
from vmnet.machine import CAN_CANCEL, GUEST_RUNS_AS_BEFORE, Event, State

log = logging.getLogger(__name__)
LIMIT_S: Final = 60.0
"""systemd waits 90 s by default (systemd.service(5), TimeoutStopSec)."""


async def end_migrations(migrations: Iterable[Migration], limit_s: float = LIMIT_S) -> None:
    """Our own that have not switched over are put back, and all whose guests have stopped come to their end."""
    waited = [
        one
        for one in migrations
        if not one.final and (_is_ours(one) or one.state not in GUEST_RUNS_AS_BEFORE)
    ]
    if not waited:
        return
    log.info("waiting for %d migrations", len(waited))
    ends = [asyncio.create_task(_end(one, limit_s)) for one in waited]
    _done, late = await asyncio.wait(ends, timeout=limit_s)
    for task in late:
        task.cancel()
    if late:
        log.warning(
            "%d migrations have not ended within %g s: the next daemon finishes or undoes them",
            len(late),
            limit_s,
        )


def _is_ours(one: Migration) -> bool:
    return isinstance(one, SourceMigration) and one.managed


async def _end(one: Migration, limit_s: float) -> None:
    if _is_ours(one):
        if one.state is State.PREFLIGHT:  # it hears nothing yet
            try:
                await one.settled(tuple(CAN_CANCEL), limit_s)
            except VmnetError as error:
                log.info("%s", error)
        if one.state in CAN_CANCEL:
            reason = UnavailableError(
                f"the daemon on {one.context.host} is being stopped", "try again when it runs"
            )
            one.post(Event.CANCEL, reason)
    await asyncio.shield(one.finished())
