"""Bindings in the database. The rule is in ``generation``; here is what makes it hold among several
writers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vmnet.store import generation, rows
from vmnet.store.job import Db
from vmnet.store.records import Binding


def find(db: Db, vm: str) -> Any | None:
    found = db.find("Binding", "vm", vm=vm)
    return found[0] if found else None


def get(db: Db, vm: str) -> Binding | None:
    row = find(db, vm)
    return rows.binding(row) if row else None


def claim(db: Db, binding: Binding, expected: int | None, token: str) -> Binding:
    """``token`` is unique to the call: it tells a claim of ours whose answer was lost from somebody
    else's."""
    row = find(db, binding.vm)
    if row is not None and row.claim == token:
        return rows.binding(row)
    return _store(db, binding.vm, token, lambda stored: generation.claimed(stored, binding, expected))


def learn(db: Db, binding: Binding, token: str) -> Binding:
    return _store(db, binding.vm, token, lambda stored: generation.learned(stored, binding))


def release(db: Db, vm: str, expected: int, token: str) -> Binding:
    return _store(db, vm, token, lambda stored: generation.released(stored, vm, expected))


def _store(db: Db, vm: str, token: str, decide: Callable[[Binding | None], Binding]) -> Binding:
    """Read, decide, write; the server lets it pass only if the row is still as read."""
    row = find(db, vm)
    decided = decide(rows.binding(row) if row else None)
    columns = rows.binding_columns(decided)
    if row is None:
        db.insert("Binding", claim=token, **columns)
        # Two hosts may insert at once: only one may find its own row and no other.
        db.expect("Binding", [["vm", "==", vm]], claim=token)
        return decided
    if rows.binding(row) == decided:
        return decided
    for name in ("generation", "active", "claim"):
        row.verify(name)
    db.set(row, claim=token, **columns)
    return decided
