"""What the pictures of the router bench show: medians and spread by scheme and rate, and what Pisa 2010 says in its text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Row = Mapping[str, Any]
PAPER = "Pisa 2010 (text)"
# Pisa et al. of Xen 4.0, section 3: the differences are from standard migration, packet size makes none
LESS_DOWNTIME_MS = 200.0
LONGER_MS = 15_000.0
OPENFLOW_MS = 5.0


@dataclass(frozen=True, slots=True)
class Point:
    """One scheme at one rate: every run's value, and those without a migration."""

    rate_pps: int
    values: tuple[float, ...]
    controls: tuple[float, ...] = ()

    @property
    def middle(self) -> float:
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Mark:
    """A value that the paper states, drawn at every rate; ``at`` has one for each rate."""

    label: str
    at: tuple[tuple[int, float], ...]


def good(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row.get("error")]


def points(rows: Sequence[Row], scheme: str, size_bytes: int, column: str) -> list[Point]:
    """By rate; rates without a migration have none."""
    mine = [row for row in good(rows) if row["scheme"] == scheme and row["size_bytes"] == size_bytes]
    found = []
    for rate in sorted({row["rate_pps"] for row in mine}):
        there = [row for row in mine if row["rate_pps"] == rate and row.get(column) is not None]
        values = tuple(row[column] for row in there if not row["control"])
        if values:
            found.append(Point(rate, values, tuple(row[column] for row in there if row["control"])))
    return found


def stated(column: str, standard: Sequence[Point], rates: Sequence[int]) -> list[Mark]:
    """The paper's differences, applied to our own standard migration; its absolute values as they are."""
    if column == "lost":
        return [Mark(f"{PAPER}: separation, OpenFlow: none", tuple((rate, 0.0) for rate in rates))]
    openflow = Mark(f"{PAPER}: OpenFlow < 5 ms", tuple((rate, OPENFLOW_MS) for rate in rates))
    if not standard:
        return [openflow]
    if column == "downtime_ms":
        level = max(0.0, median([value for point in standard for value in point.values]) - LESS_DOWNTIME_MS)
        return [Mark(f"{PAPER}: standard - 200 ms", tuple((rate, level) for rate in rates)), openflow]
    level = median([value for point in standard for value in point.values]) + LONGER_MS
    return [Mark(f"{PAPER}: standard + 15 s", tuple((rate, level) for rate in rates)), openflow]


def expected_loss(downtime: Sequence[Point]) -> Mark:
    """A router that stands still loses what arrives meanwhile."""
    at = tuple((one.rate_pps, one.rate_pps * one.middle / 1e3) for one in downtime)
    return Mark("rate × downtime (standard)", at)
