"""The live picture of a migration on a terminal: phase, pre-copy pass, bytes, dirty rate, and at the end the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def follow(events: Iterator[dict[str, Any]], vm: str, destination: str) -> dict[str, Any]:
    """Shows ``events`` as they come; returns the last."""
    console = Console(stderr=True)
    last: dict[str, Any] = {}
    lines: list[str] = []
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(30),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{vm} → {destination}", total=None, detail="preflight")
        for event in events:
            last = event
            kind = event.get("event")
            if kind == "progress":
                progress.update(
                    task,
                    total=max(1, event["total_bytes"]),
                    completed=max(0, event["total_bytes"] - event["remaining_bytes"]),
                    detail=_detail(event),
                )
            elif kind in ("state", "stop", "divert", "resume", "marker"):
                progress.update(task, detail=str(event.get("state", kind)))
            elif kind == "verdict":
                lines = event["lines"]
    out = Console()
    for nth, line in enumerate(lines):
        out.print(line, style="bold" if nth == 0 else "", highlight=False, markup=False)
    return last


def _detail(event: dict[str, Any]) -> str:
    left, rate, dirty = (event[name] / (1 << 20) for name in ("remaining_bytes", "bps", "dirty_bps"))
    return f"pass {event['pass_number']}, {left:.0f} MiB left, {rate:.0f} MiB/s, dirtied {dirty:.0f} MiB/s"
