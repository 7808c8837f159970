"""Pictures of a VM bench: gap, loss and total time by scheme and rate. Every run is a dot; the bar is the median."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from vmnet.report import style

Row = Mapping[str, Any]
FIGURES = {
    "gap": ("longest_gap_ms", "longest gap, ms", True),
    "loss": ("lost", "packets lost, both ways", True),
    "disorder": ("reordered", "packets reordered, both ways", True),
    "downtime": ("compute_downtime_ms", "guest stopped, ms", False),
    "gap-minus-downtime": ("gap_minus_downtime_ms", "longest gap − guest stopped, ms", False),
    "total": ("total_ms", "migration in all, ms", False),
}


def draw_all(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Writes one image for each of FIGURES that has values; their paths."""
    good = [row for row in rows if not row.get("error")]
    files = []
    for name, (column, label, with_control) in FIGURES.items():
        if any(row.get(column) is not None for row in good):
            files.append(folder / f"{name}.png")
            _figure(files[-1], good, column, label, with_control)
    return files


def _figure(file: Path, rows: Sequence[Row], column: str, label: str, with_control: bool) -> None:
    plt = style.pyplot()
    guests = list(dict.fromkeys(row["guest"] for row in rows))
    figure, axes = plt.subplots(
        1, len(guests), sharey=True, figsize=(1.5 + 4.2 * len(guests), 3.8), squeeze=False
    )
    for axis, guest in zip(axes[0], guests, strict=True):
        _panel(axis, [row for row in rows if row["guest"] == guest], column, with_control)
        axis.set_title(f"{guest} guest", loc="left", fontweight="bold")
    axes[0][0].set_ylabel(label)
    _legend(figure, axes[0][0], rows, with_control)
    style.save(figure, file)


def _panel(axis: Any, rows: Sequence[Row], column: str, with_control: bool) -> None:
    schemes = list(dict.fromkeys(row["scheme"] for row in rows))
    rates = sorted({row["rate_pps"] for row in rows})
    width = 0.8 / max(1, len(schemes))
    top = 0.0
    for i, scheme in enumerate(schemes):
        for j, rate in enumerate(rates):
            group = [row for row in rows if row["scheme"] == scheme and row["rate_pps"] == rate]
            values = [row[column] for row in group if not row["control"] and row[column] is not None]
            control = [row[column] for row in group if row["control"] and row[column] is not None]
            at = j + (i - (len(schemes) - 1) / 2) * width
            _bar(axis, at, width, values, style.colour(scheme, i))
            if with_control:
                _control(axis, at, width, control)
            top = max([top, *values, *(control if with_control else [])])
    axis.set_xticks(range(len(rates)), [f"{rate:,}/s" for rate in rates])
    axis.set_xlabel("packets a second, each way")
    axis.grid(False, axis="x")
    _scale(axis, top)


def _bar(axis: Any, at: float, width: float, values: Sequence[float], colour: str) -> None:
    if not values:
        return
    middle = median(values)
    axis.bar(at, middle, width * 0.86, color=colour, alpha=0.45, linewidth=0, zorder=2)
    step = width * 0.5 / max(1, len(values))
    xs = [at + (k - (len(values) - 1) / 2) * step for k in range(len(values))]
    axis.scatter(xs, values, s=9, color=colour, linewidth=0, zorder=4)
    axis.annotate(
        f"{middle:g}" if middle == int(middle) else f"{middle:.0f}",
        (at, max(values)),
        (0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=7,
        color="0.25",
    )


def _control(axis: Any, at: float, width: float, values: Sequence[float]) -> None:
    if values:
        reach = width * 0.43
        axis.hlines(median(values), at - reach, at + reach, color="black", lw=1.2, zorder=5)


def _scale(axis: Any, top: float) -> None:
    """Linear up to 10 and logarithmic beyond where values are far apart; zero stays zero."""
    low, _ = axis.get_ylim()
    if top > 1000:
        axis.set_yscale("symlog", linthresh=10)
        axis.set_ylim(min(0, low), top * 3)
    else:
        axis.set_ylim(min(0, low), max(1.0, top * 1.15))


def _legend(figure: Any, axis: Any, rows: Sequence[Row], with_control: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    schemes = list(dict.fromkeys(row["scheme"] for row in rows))
    handles: list[Any] = [Patch(color=style.colour(s, i), alpha=0.6, label=s) for i, s in enumerate(schemes)]
    if with_control and any(row["control"] for row in rows):
        handles.append(Line2D([], [], color="black", lw=1.2, label="no migration"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
