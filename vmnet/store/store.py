"""``Store``: what a daemon keeps beyond its own life. All calls are coroutines, bounded by
``settings.timeout_s``.

Any call may raise WaitTimeoutError (naming the remote; a change may then have been made or not: repeat it,
every call is safe to repeat), UnavailableError, and RefusedError when the server cannot write. A change is on
disk when its call returns: on ours with the embedded server, on a majority's with a cluster.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from vmnet.errors import RefusedError, StaleGenerationError, VmnetError
from vmnet.store import bindings, migrations, rows
from vmnet.store.job import Db
from vmnet.store.link import Link
from vmnet.store.records import Binding, HostRecord, JournalEntry, JournalState, MigrationRecord
from vmnet.store.server import EmbeddedServer
from vmnet.store.settings import StoreSettings

T = TypeVar("T")


class Store:
    """An open store; ``await Store.open(settings)``, and ``close`` it (or use ``async with``)."""

    def __init__(self, settings: StoreSettings, link: Link, server: EmbeddedServer | None) -> None:
        self.settings = settings
        self.server = server
        self._link = link

    @classmethod
    async def open(cls, settings: StoreSettings) -> Store:
        """Start the embedded server (unless there are remotes), connect, and enter this host.

        Raises UnavailableError (damaged or locked database, no ovsdb-server), WaitTimeoutError (no
        connection).
        """
        server = EmbeddedServer(settings) if settings.embedded else None
        link: Link | None = None
        try:
            if server is not None:
                await asyncio.to_thread(server.start)
            link = await Link.open(settings)
            store = cls(settings, link, server)
            await store.host_touch(start=True)
        except BaseException:
            if link is not None:
                await link.close()
            if server is not None:
                await asyncio.to_thread(server.stop)
            raise
        return store

    async def close(self) -> None:
        """End the connection, then the embedded server. Safe to call twice."""
        await self._link.close()
        if self.server is not None:
            await asyncio.to_thread(self.server.stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Hosts

    async def host_touch(self, info: Mapping[str, str] | None = None, start: bool = False) -> None:
        """Say that this host lives; ``info`` (if given) replaces what is told of it."""
        await self._run(lambda db: self._touch(db, info, start))

    async def hosts(self) -> list[HostRecord]:
        return sorted(
            await self._run(lambda db: [rows.host(row) for row in db.rows("Host")]), key=lambda h: h.name
        )

    # Migrations of this host

    async def migration_put(self, record: MigrationRecord) -> None:
        """Insert the record, or replace the one of the same id. ``record.host`` must be this host or
        empty."""
        if record.host not in ("", self.settings.host):
            raise VmnetError(f"migration {record.id} belongs to host {record.host}, not {self.settings.host}")
        owned = replace(record, host=self.settings.host)
        await self._write(lambda db: migrations.put(db, owned))

    async def migration_get(self, migration_id: str) -> MigrationRecord | None:
        def work(db: Db) -> MigrationRecord | None:
            row = migrations.find(db, migration_id, self.settings.host)
            return rows.migration(row) if row else None

        return await self._run(work)

    async def migrations(self, open_only: bool = True) -> list[MigrationRecord]:
        """Oldest first."""
        found = await self._run(migrations.every)
        return sorted((r for r in found if r.open or not open_only), key=lambda r: (r.started or 0.0, r.id))

    async def migration_history(self, limit: int = 100) -> list[MigrationRecord]:
        """Finished ones, the latest first."""
        found = [record for record in await self._run(migrations.every) if not record.open]
        return sorted(found, key=lambda r: (r.finished or 0.0, r.id), reverse=True)[:limit]

    async def migration_delete(self, migration_id: str) -> None:
        """Delete the record and its journal; no error if there is none."""
        await self._write(lambda db: migrations.delete(db, [migration_id], self.settings.host))

    async def history_trim(self, keep: int) -> None:
        """Delete all finished migrations but the latest ``keep``."""
        surplus = [record.id for record in (await self.migration_history(1 << 30))[keep:]]
        if surplus:
            await self._write(lambda db: migrations.delete(db, surplus, self.settings.host))

    # Journal of this host

    async def journal_plan(self, migration_id: str, entries: Sequence[JournalEntry]) -> None:
        """Write the entries in one transaction; on disk when this returns. Repeating it changes nothing.

        Raises VmnetError when a different entry has the same seq.
        """
        owner, now = self.settings.host, time.time()
        await self._write(lambda db: migrations.journal_plan(db, migration_id, owner, entries, now))

    async def journal_mark(self, migration_id: str, seq: int | Iterable[int], state: JournalState) -> None:
        """Set the state of one entry, or of several in one transaction. Raises NotFoundError."""
        seqs, now = [seq] if isinstance(seq, int) else list(seq), time.time()
        await self._write(lambda db: migrations.journal_mark(db, migration_id, seqs, state, now))

    async def journal(self, migration_id: str) -> list[JournalEntry]:
        """In the order of seq; empty if there is none."""
        return await self._run(lambda db: migrations.journal(db, migration_id))

    async def journal_clear(self, migration_id: str) -> None:
        await self._write(lambda db: migrations.journal_clear(db, migration_id))

    async def journaled(self) -> list[str]:
        """The ids of all migrations with journal entries on this host, so that none is overlooked."""
        return await self._run(lambda db: sorted({row.migration for row in db.rows("Journal")}))

    # Bindings, of all hosts that share the database

    async def binding_get(self, vm: str) -> Binding | None:
        """The VM's binding; one that was released is not ``active``. May lag another host's claim by milliseconds."""
        return await self._run(lambda db: bindings.get(db, vm))

    async def bindings(self) -> list[Binding]:
        found = await self._run(lambda db: [rows.binding(row) for row in db.rows("Binding")])
        return sorted(found, key=lambda binding: binding.vm)

    async def binding_claim(self, binding: Binding, expected_generation: int | None) -> Binding:
        """Make ``binding`` the VM's active one, with generation ``expected_generation`` + 1 (None: there is
        none; 1).

        Atomic among all writers. Returns what was stored; raises StaleGenerationError when the stored
        generation is another (a host with a database of its own first has to ``binding_learn`` what its peer
        knows).
        """
        token = str(uuid.uuid4())
        return await self._decide(lambda db: bindings.claim(db, binding, expected_generation, token))

    async def binding_learn(self, binding: Binding) -> Binding:
        """Store a binding that an authenticated peer has told us. Raises StaleGenerationError unless it is
        newer than (or the same as) ours."""
        token = str(uuid.uuid4())
        return await self._decide(lambda db: bindings.learn(db, binding, token))

    async def binding_release(self, vm: str, generation: int) -> Binding:
        """The VM is no longer bound anywhere; its generation is kept. Raises StaleGenerationError."""
        token = str(uuid.uuid4())
        return await self._decide(lambda db: bindings.release(db, vm, generation, token))

    # Room

    async def space_check(self) -> None:
        """Raise RefusedError when the journal could not be written: too little room, or a server that cannot
        write."""
        if self.settings.embedded:
            await asyncio.to_thread(_free_check, self.settings)
        await self.host_touch()

    async def _run(self, work: Callable[[Db], T]) -> T:
        failure = self.server.failure if self.server else None
        if failure is not None:
            raise failure
        try:
            return await self._link.run(work)
        except RefusedError:
            if self.server is not None:
                self.server.restart()
            raise

    async def _write(self, work: Callable[[Db], T]) -> T:
        """``work``, and on a repeat one write more: the first try may have reached the server's file but not
        the disk; a write that is synchronous takes all earlier ones along."""

        def repeatable(db: Db) -> T:
            result = work(db)
            if db.attempt:
                self._touch(db)
            return result

        return await self._run(repeatable)

    async def _decide(self, work: Callable[[Db], T]) -> T:
        """``work``, once more if it found a generation stale in a replica that may lag behind the shared database."""
        try:
            return await self._write(work)
        except StaleGenerationError:
            if self.settings.embedded:
                raise  # nobody else writes there
        await self.host_touch()  # the server sends all earlier changes before it confirms this one
        return await self._write(work)

    def _touch(self, db: Db, info: Mapping[str, str] | None = None, start: bool = False) -> None:
        found = db.find("Host", "name", name=self.settings.host)
        columns: dict[str, Any] = {"last_seen": time.time()}
        if start:
            starts = found[0].starts if found else 0
            columns |= {"starts": starts + 1, "info": {"pid": str(os.getpid())}}
        if info is not None:
            columns["info"] = dict(info)
        if found:
            db.set(found[0], **columns)
        else:
            db.insert("Host", name=self.settings.host, **columns)


def _free_check(settings: StoreSettings) -> None:
    status = os.statvfs(settings.state_dir)
    free = status.f_bavail * status.f_frsize
    if free < settings.min_free_bytes:
        raise RefusedError(
            f"{settings.state_dir} has {free >> 20} MiB left, "
            f"the journal wants {settings.min_free_bytes >> 20} MiB",
            "make room, or set [daemon] state_dir to another file system",
        )
