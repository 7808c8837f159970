"""Picture of the forwarding bench: packets a second by path, size and IP version. Every round is a dot; the bar is the median."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from vmnet.report import style

Row = Mapping[str, Any]
COLOURS = {"ours": "#2b6cb0", "plain": "#8c9bab", "vm": "#dd8a3c"}
LABELS = {"ours": "vmnet's data plane", "plain": "kernel, without vmnet", "vm": "the router VM itself"}
Bars = dict[str, list[tuple[str, list[float]]]]


def bars(rows: Sequence[Row]) -> Bars:
    """By path: label of the group and its values, groups in the order of their first appearance. Pure."""
    good = [row for row in rows if not row.get("error") and row.get("pps") is not None]
    groups = list(dict.fromkeys((row["size_bytes"], row["ip_version"]) for row in good))
    found: Bars = {}
    for path in dict.fromkeys(row["path"] for row in good):
        found[path] = [
            (
                f"{size} B\nIPv{version}",
                [
                    row["pps"]
                    for row in good
                    if (row["path"], row["size_bytes"], row["ip_version"]) == (path, size, version)
                ],
            )
            for size, version in groups
        ]
    return found


def draw(folder: Path, rows: Sequence[Row]) -> Path:
    """Writes ``forward.png``; its path."""
    plt = style.pyplot()
    figure, axis = plt.subplots(figsize=(6.5, 3.8))
    found = bars(rows)
    for number, (path, groups) in enumerate(found.items()):
        width = 0.8 / len(found)
        _path(axis, path, groups, (number - (len(found) - 1) / 2) * width, width)
    labels = [label for label, _ in next(iter(found.values()), [])]
    axis.set_xticks(range(len(labels)), labels)
    axis.grid(False, axis="x")
    axis.set_ylabel("packets a second, one CPU sends")
    figure.legend(loc="outside upper center", ncols=3)
    file = folder / "forward.png"
    style.save(figure, file)
    return file


def _path(
    axis: Any, path: str, groups: Sequence[tuple[str, list[float]]], shift: float, width: float
) -> None:
    colour = COLOURS.get(path, style.colour(path, 0))
    for at, (_, values) in enumerate(groups):
        if not values:
            continue
        label = LABELS.get(path, path) if at == 0 else None
        axis.bar(at + shift, median(values), width * 0.86, color=colour, alpha=0.45, linewidth=0, label=label)
        axis.scatter([at + shift] * len(values), values, s=9, color=colour, linewidth=0, zorder=4)
