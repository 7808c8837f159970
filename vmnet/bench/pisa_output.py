"""The router bench's file, valid at any time; its table; a line for each run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vmnet.bench import result_file
from vmnet.bench.pisa_rows import Row, summarise
from vmnet.errors import ConfigError
from vmnet.report import table

NAME = "pisa"
COLUMNS = {
    "sent": "data sent",
    "lost": "lost",
    "duplicated": "dup",
    "reordered": "reord",
    "gap_ms": "gap ms",
    "delay_max_ms": "latest ms",
    "downtime_ms": "downtime ms",
    "total_ms": "total ms",
    "memory_mib": "MiB",
    "pages_again": "dirty pages",
    "control_lost": "ctl lost",
    "control_duplicated": "ctl dup",
    "control_gap_ms": "ctl gap ms",
    "back_lost": "back lost",
    "gone_ms": "old gone ms",
}
"""Of the table, with what is written over them."""


def document(machine: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "bench": NAME,
        "machine": machine,
        "rows": [row.to_json() for row in rows],
        "summary": summarise(rows),
    }


def write(file: Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Replaces the file in one step."""
    result_file.replace(file, document(machine, rows))


def read_rows(file: Path) -> list[Row]:
    """The rows of an earlier, perhaps interrupted, bench; none without a file. Raises ConfigError when it is no such bench's."""
    if not file.exists():
        return []
    try:
        found = json.loads(file.read_text())
        if found["bench"] != NAME:
            raise ValueError(found["bench"])
        return [Row(**row) for row in found["rows"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{file} is not a result of 'vmnet bench {NAME}'", "give another file") from error


def read_machine(file: Path) -> dict[str, Any]:
    """What the file's rows were measured on; nothing without a file. For one that ``read_rows`` takes."""
    found: dict[str, Any] = json.loads(file.read_text()).get("machine", {}) if file.exists() else {}
    return found


def show(rows: Sequence[Row]) -> None:
    heads = ("scheme", "rate", "bytes", "runs", *COLUMNS.values(), "flapped", "no loss")
    table.show(heads, [_line(entry) for entry in summarise(rows)], "medians")


def _line(entry: Mapping[str, Any]) -> list[table.Cell]:
    return [
        entry["scheme"] + (" control" if entry["control"] else ""),
        entry["rate_pps"],
        entry["size_bytes"],
        entry["runs"],
        *(entry[name]["median"] if entry[name] else None for name in COLUMNS),
        f"{entry['flapped']}/{entry['runs']}",
        f"{entry['lost_none']}/{entry['runs']}",
    ]


def _back(row: Row) -> str:
    said = f"back {row.back_lost} of {row.back_sent} lost, dup {row.back_duplicated}, reordered {row.back_reordered}"
    said += f", gap {row.back_gap_ms} ms"
    if row.control:
        return said
    said += f"; downtime {table.text(row.downtime_ms)} ms, total {table.text(row.total_ms)} ms"
    return f"{said}, old path gone after {table.text(row.gone_ms)} ms"


def describe(row: Row) -> str:
    name = (
        f"{row.scheme}{' control' if row.control else ''} {row.rate_pps}/s {row.size_bytes} B run {row.run}"
    )
    if row.error:
        return f"{name}: {row.error}"
    said = f"{name}: data {row.lost} of {row.sent} lost, dup {row.duplicated}, reordered {row.reordered}, gap {row.gap_ms} ms"
    if row.back_sent is not None:
        return f"{said}; {_back(row)}"
    said += f" (sender {row.sender_gap_ms}); control {row.control_lost} of {row.control_sent} lost, gap {row.control_gap_ms} ms"
    if not row.control:
        said += f"; downtime {table.text(row.downtime_ms)} ms, total {table.text(row.total_ms)} ms"
    return f"{said}; {row.flapped} sessions down, {row.routes_after} of {row.routes_before} routes"
