"""How far the bench is: a bar when a person looks, one line a run otherwise, both on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vmnet.bench.rows import Row
from vmnet.report.table import text


def describe(row: Row) -> str:
    name = f"{row.scheme}{' control' if row.control else ''} {row.rate_pps}/s {row.guest} run {row.run}"
    if row.error:
        return f"{name}: {row.error}"
    measured = f"{name}: lost {row.lost}, dup {row.duplicated}, reordered {row.reordered}, gap {text(row.longest_gap_ms)} ms"
    if row.guest_resent or row.guest_forgot:
        measured += f" (guest memory went back: {row.guest_resent} sent again, {row.guest_forgot} forgotten)"
    if row.control:
        return measured
    return f"{measured}, downtime {text(row.compute_downtime_ms)} ms, total {text(row.total_ms)} ms"


@contextmanager
def shown(total: int, describe: Callable[[Any], str] = describe) -> Iterator[Callable[[Any], None]]:
    """Gives the function to call after each row."""
    if not sys.stderr.isatty():
        numbers = iter(range(1, total + 1))
        yield lambda row: print(f"[{next(numbers)}/{total}] {describe(row)}", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("labs are up", total=total)
        yield lambda row: bar.update(task, advance=1, description=describe(row))
