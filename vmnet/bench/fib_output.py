"""``vmnet bench fib`` for people: progress, a table, a picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vmnet.bench.fib import FibRow, summarise
from vmnet.report import table

NAMES = {
    "count": "FPM, thrown away (control)",
    "kernel": "FRR to kernel",
    "clone": "clone to another host",
    "sweep": "sweep",
    "ip-batch": "ip -batch",
}


def describe(row: FibRow) -> str:
    if row.error or row.seconds is None:
        return f"{row.case} run {row.run}: {row.error}"
    return f"{row.case} run {row.run}: {row.routes} routes in {row.seconds:.3f} s"


@contextmanager
def shown(total: int) -> Iterator[tuple[Callable[[FibRow], None], Callable[[str], None]]]:
    """Gives the functions to call after each row and for what is under way."""
    if not sys.stderr.isatty():
        numbers = iter(range(1, total + 1))
        yield (
            lambda row: print(f"[{next(numbers)}/{total}] {describe(row)}", file=sys.stderr, flush=True),
            lambda text: print(text, file=sys.stderr, flush=True),
        )
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield (
            lambda row: bar.update(task, advance=1, description=describe(row)),
            lambda text: bar.update(task, description=text),
        )


def show(rows: Sequence[FibRow]) -> None:
    columns = ("case", "routes", "runs", "s", "least s", "most s", "routes/s", "longest turn ms", "RSS MiB")
    lines: list[list[table.Cell]] = []
    for one in summarise(rows):
        seconds, rate = one["seconds"] or {}, one["routes_per_s"] or {}
        spread = [f"{seconds[name]:.3f}" if seconds else None for name in ("median", "min", "max")]
        turn, memory = ((one[name] or {}).get("median") for name in ("longest_turn_ms", "rss_mib"))
        per_s = round(rate["median"]) if rate else None
        lines.append([NAMES[one["case"]], one["routes"], one["runs"], *spread, per_s, turn, memory])
    table.show(columns, lines, "medians")


def draw(folder: Path, rows: Sequence[FibRow]) -> Path:
    """Routes a second of each case, with least and most."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = [one for one in summarise(rows) if one["routes_per_s"]]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 * len(found) + 1.2))
    middles = [one["routes_per_s"]["median"] / 1e3 for one in found]
    low = [m - one["routes_per_s"]["min"] / 1e3 for m, one in zip(middles, found, strict=True)]
    high = [one["routes_per_s"]["max"] / 1e3 - m for m, one in zip(middles, found, strict=True)]
    axes.barh(
        [f"{NAMES[one['case']]}, {one['routes']:,}" for one in found],
        middles,
        xerr=[low, high],
        color="#4878a8",
    )
    axes.invert_yaxis()
    axes.set_xlabel("thousand routes a second (median, least and most)")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "fib.png"
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return file
