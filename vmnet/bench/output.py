"""The bench's file: valid at any time, whatever interrupts the bench; and a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vmnet.bench import result_file
from vmnet.bench.rows import Row, summarise
from vmnet.errors import ConfigError
from vmnet.report import table


def document(machine: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "bench": "vm",
        "machine": machine,
        "rows": [row.to_json() for row in rows],
        "summary": summarise(rows),
    }


def write(file: Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Replaces the file in one step."""
    result_file.replace(file, document(machine, rows))


def read_rows(file: Path) -> list[Row]:
    """The rows of an earlier, perhaps interrupted, bench; none when there is no file. Raises ConfigError when it is no bench's."""
    if not file.exists():
        return []
    try:
        return [Row(**row) for row in json.loads(file.read_text())["rows"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{file} is not a result of 'vmnet bench vm'", "give another file") from error


def show(rows: Sequence[Row]) -> None:
    columns = (
        "scheme",
        "rate",
        "guest",
        "runs",
        "lost",
        "dup",
        "reord",
        "gap ms",
        "downtime ms",
        "gap-dt",
        "total ms",
        "no loss",
    )
    table.show(columns, [_line(entry) for entry in summarise(rows)], "medians")


def _line(entry: Mapping[str, Any]) -> list[table.Cell]:
    name = entry["scheme"] + (" control" if entry["control"] else "")
    measured = (
        "lost",
        "duplicated",
        "reordered",
        "longest_gap_ms",
        "compute_downtime_ms",
        "gap_minus_downtime_ms",
        "total_ms",
    )
    middles = [entry[m]["median"] if entry[m] else None for m in measured]
    return [
        name,
        entry["rate_pps"],
        entry["guest"],
        entry["runs"],
        *middles,
        f"{entry['lost_none']}/{entry['runs']}",
    ]
