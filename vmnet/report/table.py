"""Tables: drawn when a person looks, plain columns otherwise."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

Cell = str | int | float | None


def text(value: Cell) -> str:
    """Numbers short, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


def plain(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns padded with spaces; numbers to the right."""
    cells = [[text(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    right = [_numeric([row[i] for row in rows]) for i in range(len(columns))]
    lines = [
        "  ".join(
            word.rjust(w) if r else word.ljust(w) for word, w, r in zip(line, widths, right, strict=True)
        )
        for line in [list(columns), *cells]
    ]
    return "".join(line.rstrip() + "\n" for line in lines)


def _numeric(values: Sequence[Cell]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in values)


def show(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], title: str = "", stream: TextIO | None = None
) -> None:
    """Prints a table on ``stream`` (standard output)."""
    out = stream or sys.stdout
    if not out.isatty():
        out.write(plain(columns, rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if _numeric([row[i] for row in rows]) else "left")
    for row in rows:
        table.add_row(*(text(value) for value in row))
    Console(file=out).print(table)
