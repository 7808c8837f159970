"""Rows of ``vmnet bench forward``, the search for a rate without loss, and their summary. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vmnet.bench.rows import spread

PATHS = ("ours", "plain", "vm")
REQUIRED = 0.8
"""Of plain forwarding, what ours has to reach."""


@dataclass(frozen=True, slots=True)
class Case:
    """``size_bytes``: of the IP packet."""

    path: str
    size_bytes: int
    ip_version: int


@dataclass(frozen=True, slots=True)
class Row:
    """``pps``: what arrived a second while one CPU sent as fast as it could. ``cost_ns``: its inverse.

    ``cpu_ns``: the same without the time in which others had the CPU. ``lossless_pps``: the highest rate found without loss, only of
    the VM. ``counted``: packets that our programs saw on the way.
    """

    path: str
    size_bytes: int
    ip_version: int
    round: int
    sent: int | None = None
    arrived: int | None = None
    pps: float | None = None
    cost_ns: float | None = None
    cpu_ns: float | None = None
    lossless_pps: int | None = None
    counted: int | None = None
    error: str = ""

    @property
    def case(self) -> Case:
        return Case(self.path, self.size_bytes, self.ip_version)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "error" or value}


def measured(case: Case, number: int, found: Mapping[str, Any]) -> Row:
    """``found``: a ``vmnet.bench.saturation.Blast`` as JSON. Of the VM's path the sender's CPU is only a part of the cost."""
    arrived, seconds = found["arrived"], found["seconds"]
    per_packet = 1e9 / arrived if arrived else None
    return Row(
        **asdict(case),
        round=number,
        sent=found["sent"],
        arrived=arrived,
        pps=round(arrived / seconds, 1),
        cost_ns=per_packet and round(seconds * per_packet, 1),
        cpu_ns=per_packet and round(found["cpu_s"] * per_packet, 1) if case.path != "vm" else None,
        counted=found.get("counted"),
    )


def order(
    sizes: Sequence[int], versions: Sequence[int], paths: Sequence[str], rounds: int
) -> list[tuple[Case, int]]:
    """Paths take turns, every other round backwards, so that what changes on the machine changes for all."""
    return [
        (Case(path, size, version), number)
        for number in range(rounds)
        for size in sizes
        for version in versions
        for path in paths[:: -1 if number % 2 else 1]
    ]


def highest(lossless: Callable[[int], bool], low_pps: int, high_pps: int, tries: int) -> int | None:
    """By bisection, the highest rate between the two that loses nothing; None if none of those tried does."""
    best = None
    for _ in range(tries):
        rate = (low_pps + high_pps) // 2
        if lossless(rate):
            best = low_pps = rate
        else:
            high_pps = rate
    return best


def summarise(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One entry for each case. ``of_plain``: its rate in parts of plain forwarding's in the same round; ``cpu_of_plain``: plain
    forwarding's CPU time a packet in parts of its own."""
    good = [row for row in rows if not row.error]
    plain = {(row.round, row.size_bytes, row.ip_version): row for row in good if row.path == "plain"}
    cases = dict.fromkeys(row.case for row in good)
    return [_entry(case, [row for row in good if row.case == case], plain) for case in cases]


def _entry(case: Case, group: Sequence[Row], plain: Mapping[tuple[int, int, int], Row]) -> dict[str, Any]:
    beside = [(row, plain.get((row.round, row.size_bytes, row.ip_version))) for row in group]
    pairs = [(row, other) for row, other in beside if other is not None]
    return {
        **asdict(case),
        "rounds": len(group),
        **{name: _spread(group, name) for name in ("pps", "cost_ns", "cpu_ns", "lossless_pps")},
        "of_plain": spread([round(row.pps / other.pps, 4) for row, other in pairs if row.pps and other.pps]),
        "cpu_of_plain": spread(
            [round(other.cpu_ns / row.cpu_ns, 4) for row, other in pairs if row.cpu_ns and other.cpu_ns]
        ),
    }


def _spread(group: Sequence[Row], name: str) -> dict[str, float] | None:
    return spread([value for row in group if (value := getattr(row, name)) is not None])


def reached(summary: Sequence[dict[str, Any]]) -> bool:
    """Whether ours has the required part of plain forwarding's rate in every case, by the median."""
    ours = [entry["of_plain"] for entry in summary if entry["path"] == "ours"]
    return bool(ours) and all(one is not None and one["median"] >= REQUIRED for one in ours)
