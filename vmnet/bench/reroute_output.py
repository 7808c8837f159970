"""``vmnet bench reroute`` for people: a line a row, a table, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vmnet.bench.reroute_rows import PISA_MS, Row, summarise
from vmnet.report import table
from vmnet.report.table import text

_SHOWN = ("install_ms", "cut_ms", "confirmed_ms", "first_packet_ms", "changes_per_s")


def describe(row: Row) -> str:
    name = f"{row.scheme}{' control' if row.control else ''} {row.flows} flows {row.rate_pps}/s run {row.run}"
    if row.error:
        return f"{name}: {row.error}"
    said = []
    if row.cut_ms is not None:
        said.append(
            f"install {text(row.install_ms)} ms, cut {text(row.cut_ms)} ms, {text(row.changes_per_s)} changes/s"
        )
    if row.first_packet_ms is not None:
        said.append(f"first packet after {text(row.first_packet_ms)} ms")
    if row.sent is not None:
        said.append(f"lost {row.lost} of {row.sent}, dup {row.duplicated}, reordered {row.reordered}")
    return f"{name}: {'; '.join(said)}"


def show(rows: Sequence[Row]) -> None:
    columns = (
        "scheme", "flows", "rate", "runs", "install ms", "cut ms", "confirmed ms", "first packet ms", "changes/s",
        "sent", "lost", "dup", "reord",
    )  # fmt: skip
    table.show(columns, [_line(entry) for entry in summarise(rows)], "medians; sent and lost: sums")


def _line(entry: Mapping[str, Any]) -> list[table.Cell]:
    name = entry["scheme"] + (" control" if entry["control"] else "")
    middles = [entry[one]["median"] if entry[one] else None for one in _SHOWN]
    counted: list[table.Cell] = [None, None, None, None]
    if entry["rate_pps"]:
        most = [entry[one]["max"] if entry[one] else None for one in ("duplicated", "reordered")]
        counted = [entry["sent"], entry["lost_in_all"], *most]
    return [name, entry["flows"], entry["rate_pps"], entry["runs"], *middles, *counted]


def draw(folder: Path, rows: Sequence[Row]) -> Path:
    """How long the cut of so many flows takes, by scheme, and the paper's 5 ms."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = [one for one in summarise(rows) if one["cut_ms"] and not one["rate_pps"]]
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for scheme in dict.fromkeys(one["scheme"] for one in found):
        own = [one for one in found if one["scheme"] == scheme]
        middles = [one["cut_ms"]["median"] for one in own]
        low = [one["cut_ms"]["median"] - one["cut_ms"]["min"] for one in own]
        high = [one["cut_ms"]["max"] - one["cut_ms"]["median"] for one in own]
        axes.errorbar(
            [one["flows"] for one in own], middles, yerr=[low, high], marker="o", capsize=3, label=scheme
        )
    axes.axhline(PISA_MS, color="grey", linestyle=":", label="Pisa 2010: under 5 ms")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("flows that change their path")
    axes.set_ylabel("ms until the switch has answered (median, least, most)")
    axes.set_title("Flows moved from one path to another")
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "reroute.png"
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return file
