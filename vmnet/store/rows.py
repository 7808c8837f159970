"""Database rows to records and back; the only place that knows the columns' spelling."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from vmnet.store.records import Binding, HostRecord, JournalEntry, JsonObject, MigrationRecord


def dump(value: JsonObject | None) -> str:
    """JSON text for a column; None is the empty string. Keys are sorted, so equal values are equal text."""
    return (
        "" if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    )


def load(text: str) -> JsonObject | None:
    value: JsonObject | None = json.loads(text) if text else None
    return value


def _optional(value: float | None) -> list[float]:
    """An optional column is a set of at most one."""
    return [] if value is None else [float(value)]


def _first(values: list[float]) -> float | None:
    return float(values[0]) if values else None  # python-ovs makes an int of 1.0


def migration_columns(record: MigrationRecord) -> dict[str, Any]:
    columns = {name: getattr(record, name) for name in _MIGRATION_SAME}
    columns |= {"migration": record.id, "verdict": dump(record.verdict), "settings": dict(record.settings)}
    return columns | {"started": _optional(record.started), "finished": _optional(record.finished)}


def migration(row: Any) -> MigrationRecord:
    return MigrationRecord(
        id=row.migration,
        verdict=load(row.verdict),
        settings=dict(row.settings),
        started=_first(row.started),
        finished=_first(row.finished),
        **{name: getattr(row, name) for name in _MIGRATION_SAME},
    )


_MIGRATION_SAME = (
    *("host", "role", "mode", "vm", "name", "source", "destination"),
    *("state", "generation", "error"),
)


def journal_columns(migration_id: str, owner: str, entry: JournalEntry) -> dict[str, Any]:
    return {
        "migration": migration_id,
        "owner": owner,
        "seq": entry.seq,
        "action": dump(entry.action),
        "inverse": dump(entry.inverse),
        "state": entry.state,
        "time": entry.time,
    }


def journal(row: Any) -> JournalEntry:
    return JournalEntry(row.seq, load(row.action) or {}, load(row.inverse), row.state, float(row.time))


def normal(entry: JournalEntry) -> JournalEntry:
    """``entry`` as it will be read back (JSON knows no tuples), to compare it with a stored one."""
    return replace(entry, action=load(dump(entry.action)) or {}, inverse=load(dump(entry.inverse)))


_BINDING_SAME = ("vm", "name", "host", "bridge", "port", "generation", "segment", "home", "active")


def binding_columns(binding: Binding) -> dict[str, Any]:
    return {name: getattr(binding, name) for name in _BINDING_SAME} | {"macs": list(binding.macs)}


def binding(row: Any) -> Binding:
    return Binding(macs=tuple(row.macs), **{name: getattr(row, name) for name in _BINDING_SAME})


def host(row: Any) -> HostRecord:
    return HostRecord(row.name, row.starts, float(row.last_seen), dict(row.info))
