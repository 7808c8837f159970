"""After a restart: every migration that was under way is finished or undone. What to do is decided by a pure function.

The kernel's part goes on while no daemon runs: a gate that diverts still diverts, a tunnel still carries. Only a park dies with its
daemon. So before the switchover everything can be put back at once; after it, what matters is where the VM turns out to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from dom0 import executor, fabric, stretch
from dom0.context import Context
from dom0.dataplane import classifier, names, netdev, tunnel, wire
from dom0.dataplane.classifier import Direction
from dom0.router import names as router_names
from vmnet.actions import Action, Kind
from vmnet.errors import NotFoundError, VmnetError
from vmnet.machine import State
from vmnet.store import JournalEntry, MigrationRecord

log = logging.getLogger(__name__)
_OUTCOME_S = 60.0
_LOOK_AGAIN_S = 0.25


class Where(Enum):
    """What the hypervisor of this host says about the VM."""

    RUNNING = "running"
    PAUSED = "paused"
    MIGRATING = "migrating"
    ABSENT = "absent"


class Recovery(Enum):
    ABORT = "abort the hypervisor's migration, then look again"
    WAIT = "wait for the hypervisor's outcome"
    UNDO = "put everything back"
    FINISH = "the VM has left: remove what is left over"
    ADOPT = "the VM has come: remove what is left over"


@dataclass(frozen=True)
class Found:
    """A migration that a restarted daemon finds open, and where its VM is."""

    role: str
    mode: str
    state: str
    where: Where


def decide(found: Found) -> Recovery:
    """Pure. A managed migration that has not switched over is aborted; anybody else's is left to whoever began it."""
    if found.role == "source":
        if found.where is Where.ABSENT:
            return Recovery.FINISH
        if found.where is Where.MIGRATING:
            early = found.state in (State.PREFLIGHT.value, State.STARTING.value, State.PRECOPY.value)
            return Recovery.ABORT if found.mode == "managed" and early else Recovery.WAIT
        return Recovery.UNDO
    if found.where is Where.RUNNING or (found.where, found.state) == (Where.PAUSED, State.PAUSED.value):
        return Recovery.ADOPT
    if found.where is Where.ABSENT:
        return Recovery.UNDO
    return Recovery.WAIT


async def recover_all(context: Context) -> None:
    """Every open migration of this host, and devices of ours that no journal knows. Runs beside the daemon's other work."""
    records = await context.store.migrations(open_only=True)
    await stretch.restore(context.store)
    await asyncio.gather(*(_recover(context, record) for record in records))
    await _sweep(context)


async def _recover(context: Context, record: MigrationRecord) -> None:
    try:
        entries = await context.store.journal(record.id)
        await _take_gates_off(record, entries)
        outcome = await _follow(context, record)
        log.warning("migration of %s was in state %s: %s", record.name, record.state, outcome.value)
        kept = stretch.decode(record.settings) if outcome in (Recovery.ADOPT, Recovery.FINISH) else {}
        for device, other in kept.items():
            await _keep_stretched(context, record, device, other)
        if outcome is Recovery.FINISH:
            entries = await _finish_fabric(context, record, entries)
        undone = [one for one in entries if not _concerns(one, kept)]
        await executor.undo(undone, context.domains, context.rerouter)
        ended = State.DONE if outcome in (Recovery.ADOPT, Recovery.FINISH) else State.ROLLED_BACK
        note = f"the daemon was restarted in state '{record.state}': {outcome.value}"
        await context.store.migration_put(
            replace(record, state=ended.value, finished=time.time(), error=note)
        )
        await context.store.journal_clear(record.id)
    except VmnetError as error:
        log.error("migration of %s cannot be recovered yet: %s", record.name, error)


async def _finish_fabric(
    context: Context, record: MigrationRecord, entries: list[JournalEntry]
) -> list[JournalEntry]:
    """The VM has left: the fabric goes where it was going. The entries that remain to be undone."""
    moves = [one for one in entries if one.action.get("kind") == Kind.REROUTE.value]
    if moves and context.rerouter is not None:
        move = fabric.decode(Action.from_json(moves[-1].action).value)
        try:
            await context.rerouter.cut_over(move)
            await context.rerouter.finish(move)
        except (VmnetError, OSError) as error:
            log.error(
                "the fabric may not send to %s what is for VM %s: %s", move.destination, record.name, error
            )
    return [one for one in entries if one not in moves]


async def _take_gates_off(record: MigrationRecord, entries: list[JournalEntry]) -> None:
    """A gate whose park is gone drops what it should hold. A source that had switched over keeps diverting, if it does."""
    switched = record.role == "source" and record.state in (
        State.STOPPED.value,
        State.RESUMED.value,
        State.FINISHING.value,
    )
    for entry in entries:
        action = Action.from_json(entry.action)
        if action.kind is Kind.GATE and not switched:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(classifier.detach, action.target, Direction.EGRESS)


async def _follow(context: Context, record: MigrationRecord) -> Recovery:
    """Until the outcome is certain, at most a minute: then what is known must do."""
    deadline = time.monotonic() + _OUTCOME_S
    while True:
        where = await _where(context, record.vm)
        choice = decide(Found(record.role, record.mode, record.state, where))
        if choice is Recovery.ABORT:
            with contextlib.suppress(VmnetError):
                await context.domains.abort_job(record.vm)
        elif choice is not Recovery.WAIT:
            return choice
        if time.monotonic() > deadline:
            return Recovery.UNDO if record.role == "source" else Recovery.FINISH
        await asyncio.sleep(_LOOK_AGAIN_S)  # libvirt has no event for "no job any more"


async def _where(context: Context, vm: str) -> Where:
    try:
        state = await context.domains.find(vm)
        if (await context.domains.progress(vm)).active:
            return Where.MIGRATING
    except NotFoundError:
        return Where.ABSENT
    return Where.RUNNING if state.running else Where.PAUSED


async def _keep_stretched(context: Context, record: MigrationRecord, device: str, other: str) -> None:
    """A VM that runs far from its LAN hangs on this tunnel: make sure of it on this side."""
    if not netdev.exists(device):
        log.error("the tunnel %s of VM %s has gone: its LAN is cut off", device, record.name)
    elif record.role == "source":
        await stretch.begin(context.store, record.vm, device, other)
    else:
        await stretch.keep(context.store, record.vm, device, other)
        if not router_names.is_port(other):  # a router's port is put in order with the router
            await asyncio.to_thread(wire.both_ways, other, device)


def _concerns(entry: JournalEntry, kept: Mapping[str, str]) -> bool:
    """Whether undoing ``entry`` would cut a stretched VM off."""
    action = Action.from_json(entry.action)
    return action.target in kept or (action.kind is Kind.WIRE and action.target in kept.values())


async def _sweep(context: Context) -> None:
    """Tunnels of ours that belong to nothing any more: from before the journal was written, or a lost database."""
    wanted = set()
    for identity in await context.store.journaled():
        for entry in await context.store.journal(identity):
            wanted.add(Action.from_json(entry.action).target)
    for device in netdev.all_names():
        if names.is_ours(device) and device not in wanted:
            log.warning("removing left-over device %s", device)
            await asyncio.to_thread(tunnel.delete, device)
