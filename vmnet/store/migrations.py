"""Migrations and their journal in the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from vmnet.errors import NotFoundError, VmnetError
from vmnet.store import rows
from vmnet.store.job import Db
from vmnet.store.records import JournalEntry, JournalState, MigrationRecord


def find(db: Db, migration_id: str, host: str) -> Any | None:
    found = db.find("Migration", "migration", migration=migration_id, host=host)
    return found[0] if found else None


def put(db: Db, record: MigrationRecord) -> None:
    row, columns = find(db, record.id, record.host), rows.migration_columns(record)
    if row is None:
        db.insert("Migration", **columns)
    else:
        row.verify("state")  # so that a write delayed on a broken connection cannot undo this one
        db.set(row, **columns)


def every(db: Db) -> list[MigrationRecord]:
    return [rows.migration(row) for row in db.rows("Migration")]


def delete(db: Db, migration_ids: Iterable[str], host: str) -> None:
    for migration_id in migration_ids:
        journal_clear(db, migration_id)
        if (row := find(db, migration_id, host)) is not None:
            db.delete(row)


def journal_rows(db: Db, migration_id: str) -> dict[int, Any]:
    return {row.seq: row for row in db.find("Journal", "migration", migration=migration_id)}


def journal(db: Db, migration_id: str) -> list[JournalEntry]:
    return [rows.journal(row) for _, row in sorted(journal_rows(db, migration_id).items())]


def journal_plan(db: Db, migration_id: str, owner: str, entries: Sequence[JournalEntry], now: float) -> None:
    """Entries that are there already are left as they are: the call may be repeated."""
    present = journal_rows(db, migration_id)
    for entry in entries:
        if (row := present.get(entry.seq)) is None:
            stamped = replace(entry, time=entry.time or now)
            db.insert("Journal", **rows.journal_columns(migration_id, owner, stamped))
        elif not rows.journal(row).same_step(rows.normal(entry)):
            raise VmnetError(f"journal of migration {migration_id} has another entry {entry.seq} already")


def journal_mark(db: Db, migration_id: str, seqs: Iterable[int], state: JournalState, now: float) -> None:
    present = journal_rows(db, migration_id)
    for seq in seqs:
        if (row := present.get(seq)) is None:
            raise NotFoundError(f"the journal of migration {migration_id} has no entry {seq}")
        if row.state != state:
            row.verify("state")
            db.set(row, state=state, time=now)


def journal_clear(db: Db, migration_id: str) -> None:
    for row in journal_rows(db, migration_id).values():
        db.delete(row)
