"""Picture of a VM that follows a client: round trips over time, and how many links each client was away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from vmnet.report import style

PHASES = {"home": "at first", "away": "client moved", "followed": "VM moved"}
SHADES = {"home": "#a9bfd6", "away": "#dd8a3c", "followed": "#2b6cb0"}
CLIENTS = ("#2b6cb0", "#dd8a3c", "#2f855a")
_MARKS = {"client_moved_s": "c1 walks to the other building", "vm_moved_s": "the VM follows"}


def lines(found: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """By client: the median round trip of each second, at its middle. Pure."""
    return {
        name: [(one["t_s"] - 0.5, median(one["rtts_ms"])) for one in client["seconds"] if one["rtts_ms"]]
        for name, client in found["clients"].items()
    }


def top(found: Mapping[str, Any]) -> float:
    """ms: room for all but the rare long ones. Pure."""
    high = [
        one["rtt_p95_ms"]
        for client in found["clients"].values()
        for one in client["phases"].values()
        if one["rtt_p95_ms"] is not None
    ]
    return 1.15 * max(high, default=1.0)


def draw(file: Path, found: Mapping[str, Any]) -> None:
    """Of what ``vmnet demo follow --json`` gives. UnavailableError without matplotlib."""
    plt = style.pyplot()
    figure, (times, bars) = plt.subplots(
        1, 2, figsize=(9.5, 3.8), gridspec_kw={"width_ratios": (2.4, 1), "wspace": 0.06}
    )
    _times(times, found)
    _bars(bars, found)
    style.save(figure, file)


def _times(axis: Any, found: Mapping[str, Any]) -> None:
    for number, (name, points) in enumerate(lines(found).items()):
        colour = CLIENTS[number % len(CLIENTS)]
        for one in found["clients"][name]["seconds"]:
            each = one["rtts_ms"]
            at = [one["t_s"] - 1 + (place + 0.5) / len(each) for place in range(len(each))]
            axis.plot(at, each, ".", color=colour, alpha=0.18, markersize=3, markeredgewidth=0)
        axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.6, label=name)
    height = top(found)
    for key, label in _MARKS.items():
        axis.axvline(found[key], color="0.35", linewidth=0.9, linestyle=(0, (4, 3)))
        axis.annotate(label, (found[key], height), (3, -9), textcoords="offset points", fontsize=8)
    axis.set(
        xlabel="seconds",
        ylabel="round trip, ms (lines: median of a second)",
        ylim=(0, height),
        xlim=(0, None),
    )
    axis.legend(loc="lower left", ncols=3)


def _bars(axis: Any, found: Mapping[str, Any]) -> None:
    names = list(found["clients"])
    for number, (phase, label) in enumerate(PHASES.items()):
        at = [place + (number - 1) * 0.27 for place in range(len(names))]
        hops = [found["clients"][name]["phases"][phase]["hops"] or 0 for name in names]
        axis.bar_label(axis.bar(at, hops, 0.25, color=SHADES[phase], label=label), fontsize=8)
    axis.set_xticks(range(len(names)), names)
    axis.grid(False, axis="x")
    axis.set(ylabel="links to the VM, by the switches' tables", ylim=(0, 7))
    axis.legend(loc="upper center", ncols=1, fontsize=8)
