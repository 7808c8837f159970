"""Drives one side of one migration: events in, the table's steps performed, every state written down. Shared by both sides.

The subclasses say how each step is done; which steps, and when, is :mod:`vmnet.machine`'s alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from dom0 import executor
from dom0.claim import mac_bytes
from dom0.context import Context
from dom0.dataplane.gate import Bounds
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.priority import guest_process
from vmnet.actions import Action, Kind
from vmnet.errors import VmnetError, WaitTimeoutError
from vmnet.machine import FINAL, Event, IllegalTransition, Role, State, Step, can_roll_back, step
from vmnet.store import MigrationRecord

Made = TypeVar("Made")


def settled(made: Iterable[Made | BaseException], keep: list[Made]) -> None:
    """Of things made side by side: those that were are put into ``keep``, to be given back; then the first failure is raised."""
    failures = []
    for one in made:
        if isinstance(one, BaseException):
            failures.append(one)
        else:
            keep.append(one)
    if failures:
        raise failures[0]


CRASH_AT = "VMNET_CRASH_AT"
"""For the tests of recovery: ``ROLE:STATE`` at which the daemon kills itself, as ``kill -9`` would."""


_BUSY = {State.SWITCHOVER, State.STOPPED, State.EXPECTING, State.RESUMED}
"""The guest is stopping or has just begun to run: the host is its own then, we hurry, and what is written of that can wait."""
_STILL = {State.STOPPED, State.EXPECTING}
"""Its hypervisor sends or receives the rest of it, and does nothing else."""
_LAST = {State.OPEN, State.ROLLING_BACK}
"""Whose steps still let the guest have what waits for it."""
_LATER_S = 0.25
LIBVIRT_LOST: Final = "libvirt went away during the migration"


class Migration:
    """One side of one migration. ``post`` events; they are worked off one after the other."""

    role: Role

    def __init__(self, context: Context, record: MigrationRecord, state: State) -> None:
        self.context = context
        self.record = record
        self.state = state
        self.error: VmnetError | None = None
        self.hypervisor_lost = False
        """libvirt went away in the middle: what it has told since is not all that has happened."""
        self.notes: list[str] = []
        self.log = logging.getLogger(f"dom0.{self.role.value}.{record.name}")
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._writes: asyncio.Queue[MigrationRecord] = asyncio.Queue()
        self._changed = asyncio.Condition()
        self._ended = asyncio.Event()
        self._journaled = 0
        self._working = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting = state
        self._guest: int | None = None
        """The guest's QEMU, while it has our priority."""
        self.steps: dict[Step, Callable[[], Awaitable[None]]] = {}

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.spawn(self._write_states())
        self._runner = asyncio.create_task(self._run())
        self._note_state()

    def lose_hypervisor(self) -> None:
        if not self.final and not self.hypervisor_lost:
            self.hypervisor_lost = True
            self.notes.append(LIBVIRT_LOST)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def post(self, event: Event, error: VmnetError | None = None) -> None:
        if error is not None and self.error is None:
            self.error = error
        self._events.put_nowait(event)

    async def finished(self) -> None:
        await self._runner

    @property
    def final(self) -> bool:
        return self.state in FINAL

    async def settled(self, states: Sequence[State], limit_s: float) -> State:
        """Until one of ``states``, or a final state, is reached and its steps are done. WaitTimeoutError after ``limit_s``."""

        def there() -> bool:
            return (self.state in states or self.final) and not self._working

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(there), limit_s)
            except TimeoutError:
                wanted = " or ".join(one.value for one in states)
                raise WaitTimeoutError(
                    f"{self.record.name} did not get to '{wanted}' within {limit_s:g} s (it is in '{self.state.value}')"
                ) from None
        return self.state

    # -- events and steps ---------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self.final:
            await self._handle(await self._events.get())
        await self._flush()
        for task in list(self._tasks):
            task.cancel()

    async def _handle(self, event: Event) -> None:
        try:
            row = step(self.role, self.state, event)
        except IllegalTransition as error:
            self.log.error("%s", error)
            return
        if row is None:
            self.after(event)
            return
        self.log.info("%s: %s -> %s", event.value, row.state.value, row.next.value)
        self._working = True
        entered = row.next is not self.state
        self.state = row.next
        if entered:
            self._hurry()
            self._note_state()
            self.entered()
        await self._perform(row.steps)
        self._working = False
        self._hurry()
        if entered:
            await self._crash_if_told()
        if self.state is State.ROLLING_BACK:
            self.post(Event.UNDONE)
        self.after(event)
        async with self._changed:
            self._changed.notify_all()

    def _hurry(self) -> None:
        """From when the guest is about to stop until it has what waited for it, and no longer: cleaning up would be in its way."""
        hurry = self.context.hurry
        if self.state in _BUSY:
            hurry.begin(self, os.getpid())
        elif self.state not in _LAST or not self._working:
            hurry.end(self, os.getpid())
        if self.state in _STILL and self.guest_may_come_first():
            self.put_guest_first()
        elif self._guest is not None:
            hurry.end(self, self._guest)
            if self.state is State.RESUMED and self.role is Role.DESTINATION:
                self.context.favour.begin(self, self._guest)
            self._guest = None

    def guest_may_come_first(self) -> bool:
        """For subclasses: False if something else of this host must get on while the guest stands still."""
        return True

    def put_guest_first(self) -> None:
        """Its QEMU gets our priority, until the end of the step or while the guest stands still."""
        if self._guest is None:
            self._guest = guest_process(self.record.name)
            if self._guest is not None:
                self.context.hurry.begin(self, self._guest)

    async def _perform(self, steps: Sequence[Step]) -> None:
        """Going forward, a step that fails ends the row and the migration; going back, every step is tried."""
        for one in steps:
            began = time.monotonic()
            try:
                await self.steps[one]()
            except Exception as error:  # a defect in a step must not leave a migration half done either
                self.log.warning(
                    "cannot %s: %s", one.value, error, exc_info=not isinstance(error, VmnetError)
                )
                if not can_roll_back(self.state) or self.state is State.ROLLING_BACK:
                    continue
                failure = (
                    error if isinstance(error, VmnetError) else VmnetError(f"cannot {one.value}: {error}")
                )
                self.post(Event.FAILED, failure)
                return
            self.tell("step", step=one.name.lower(), took_ms=round((time.monotonic() - began) * 1000, 3))

    def entered(self) -> None:
        """For subclasses: called when a state is entered, before its steps."""

    def after(self, event: Event) -> None:
        """For subclasses: called when an event has been dealt with, also one that meant nothing any more."""

    def expect_within(self, seconds: float, event: Event, why: str) -> None:
        """Unless the state has changed by then, ``event`` is posted."""
        state = self.state
        if self._deadline is not None:
            if self._waiting is state:
                return
            self._deadline.cancel()
        self._waiting = state

        def late() -> None:
            if self.state is state:
                self.log.warning("%s within %g s: going on as if '%s'", why, seconds, event.value)
                self.notes.append(f"{why} within {seconds:g} s")
                self.post(event)

        self._deadline = asyncio.get_running_loop().call_later(seconds, late)

    # -- what is told and written ---------------------------------------------------------------------------------

    def tell(self, event: str, **fields: Any) -> None:
        """An event for whoever watches this migration; ``t`` is seconds since the epoch."""
        self.context.publish(
            self.record.id,
            {"event": event, "t": time.time(), "host": self.context.host, "role": self.role.value, **fields},
        )

    def _note_state(self) -> None:
        finished = time.time() if self.final else None
        self.record = replace(
            self.record,
            state=self.state.value,
            finished=finished,
            error=str(self.error) if self.error else "",
        )
        self._writes.put_nowait(self.record)
        self.tell("state", state=self.state.value)

    async def _write_states(self) -> None:
        """In order, and not in the switchover's way: what a restart needs is in the journal already."""
        while True:
            record = await self._writes.get()
            if State(record.state) in _BUSY:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), _LATER_S)
            if self._writes.empty():
                try:
                    await self.context.store.migration_put(record)
                except VmnetError as error:
                    self.log.error("cannot write state %s: %s", record.state, error)
            self._writes.task_done()

    async def _flush(self) -> None:
        self._ended.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._writes.join(), 10)
        if self.final:
            with contextlib.suppress(VmnetError):
                await self._clear_journal()

    async def _clear_journal(self) -> None:
        """What a step made before it failed is known only to the journal."""
        store = self.context.store
        if self.state is State.ROLLED_BACK:
            entries = await store.journal(self.record.id)
            made = [one for one in entries if one.action.get("kind") != Kind.SUSPEND.value]
            await executor.undo(made, self.context.domains, self.context.rerouter)
        await store.migration_put(self.record)
        await store.journal_clear(self.record.id)

    async def journal(self, actions: Sequence[Action]) -> None:
        """Write down what is about to be changed, and how it is put back. Returns when it is on disk."""
        entries = executor.planned(actions, self._journaled)
        self._journaled += len(entries)
        await self.context.store.journal_plan(self.record.id, entries)

    def port_settings(self, mac: str, vni: int, local: str = "", remote: str = "") -> PortSettings:
        """``local`` and ``remote``: the tunnel's ends, if they are known."""
        config = self.context.config
        return PortSettings(
            mac=mac_bytes(mac),
            vni=vni,
            local=local,
            remote=remote,
            bounds=Bounds(config.hold.max_packets, config.hold.max_bytes),
            recorder_bytes=config.recorder.bytes,
        )

    async def _crash_if_told(self) -> None:
        if os.environ.get(CRASH_AT) == f"{self.role.value}:{self.state.value}":
            await self._flush()
            os.kill(os.getpid(), signal.SIGKILL)
