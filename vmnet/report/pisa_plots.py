"""Figures 5, 6 and 7 of Pisa 2010 once more: downtime, lost packets and total time over the data packet rate. Every run is a dot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmnet.report import style
from vmnet.report.pisa_data import Mark, Point, Row, expected_loss, good, points, stated

COLOURS = {
    "standard": "#8c9bab",
    "separation": "#2b6cb0",
    "separation-virsh": "#dd8a3c",
    "openflow": "#2f855a",
}
_PAPER = ("#805ad5", "#b83280")
FIGURES = {
    "figure-5-downtime": ("downtime_ms", "downtime, ms"),
    "figure-6-lost": ("lost", "data packets lost"),
    "figure-7-total": ("total_ms", "migration in all, ms"),
    "data-gap": ("gap_ms", "longest gap of the data, ms"),
    "control-gap": ("control_gap_ms", "longest gap of the control plane, ms"),
}


def draw_all(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """One image for each of FIGURES that has values; their paths."""
    files = []
    for name, (column, label) in FIGURES.items():
        if any(row.get(column) is not None for row in good(rows)):
            files.append(folder / f"{name}.png")
            _figure(files[-1], rows, column, label)
    return files


def _figure(file: Path, rows: Sequence[Row], column: str, label: str) -> None:
    plt = style.pyplot()
    sizes = sorted({row["size_bytes"] for row in good(rows)})
    figure, axes = plt.subplots(
        1, len(sizes), sharey=True, figsize=(1.5 + 4.4 * len(sizes), 4.2), squeeze=False
    )
    for axis, size in zip(axes[0], sizes, strict=True):
        _panel(axis, rows, size, column)
        axis.set_title(f"{size}-byte packets", loc="left", fontweight="bold")
        axis.set_xlabel("data packets a second")
    axes[0][0].set_ylabel(label)
    # panels share their scale
    _scale(axes[0][0], max(axis.dataLim.y1 for axis in axes[0]))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=7)
    style.save(figure, file)


def _panel(axis: Any, rows: Sequence[Row], size: int, column: str) -> None:
    rates = sorted({row["rate_pps"] for row in good(rows)})
    schemes = list(dict.fromkeys(row["scheme"] for row in good(rows)))
    for number, scheme in enumerate(schemes):
        shift = 1 + 0.06 * (number - (len(schemes) - 1) / 2)
        _scheme(
            axis,
            points(rows, scheme, size, column),
            COLOURS.get(scheme, style.colour(scheme, number)),
            scheme,
            shift,
        )
    for mark, colour in zip(_marks(rows, size, column, rates), _PAPER, strict=False):
        axis.plot(*zip(*mark.at, strict=True), ls="--", lw=1, color=colour, label=mark.label, zorder=2)
    axis.set_xscale("log")
    axis.set_xticks(rates, [f"{rate:,}" for rate in rates])
    axis.minorticks_off()


def _marks(rows: Sequence[Row], size: int, column: str, rates: Sequence[int]) -> list[Mark]:
    standard = points(rows, "standard", size, column)
    if column == "lost":
        downtime = points(rows, "standard", size, "downtime_ms")
        return [*stated(column, standard, rates), *([expected_loss(downtime)] if downtime else [])]
    return stated(column, standard, rates) if column in ("downtime_ms", "total_ms") else []


def _scheme(axis: Any, found: Sequence[Point], colour: str, label: str, shift: float) -> None:
    """Runs as dots, medians as a line. Shifted, so that schemes do not hide one another."""
    if not found:
        return
    at = [point.rate_pps * shift for point in found]
    axis.plot(at, [point.middle for point in found], color=colour, lw=1.4, label=label, zorder=3)
    for x, point in zip(at, found, strict=True):
        axis.scatter([x] * len(point.values), point.values, s=12, color=colour, linewidth=0, zorder=4)


def _scale(axis: Any, top: float) -> None:
    """Linear up to 10 and logarithmic beyond where values are far apart; zero stays zero."""
    if top > 1000:
        axis.set_yscale("symlog", linthresh=10)
        axis.set_ylim(-1, top * 2)
    else:
        axis.set_ylim(-0.02 * max(top, 1.0), max(1.0, top * 1.1))
