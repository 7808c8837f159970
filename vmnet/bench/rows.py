"""One run of the VM bench is one row; rows add up to a summary. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Protocol, TypeVar

from vmnet.bench.switchover import Switchover

Direction = Mapping[str, Any]
_SOMETIMES = ("error", "verdict", "platform", "lost_out_sent_ms", "unresolved")
MEASURED = (
    "lost",
    "duplicated",
    "reordered",
    "longest_gap_ms",
    "compute_downtime_ms",
    "gap_minus_downtime_ms",
    "total_ms",
)


@dataclass(frozen=True, slots=True)
class Case:
    """What is varied."""

    scheme: str
    rate_pps: int
    size_bytes: int
    guest: str


@dataclass(frozen=True, slots=True)
class Row:
    """``out`` is client to guest, ``back`` guest to client. A control row is the same traffic without a migration.

    compute_downtime_ms: from QEMU's STOP on the source to its RESUME on the destination. total_ms: wall clock of the migrate
    command. ``guest_resent``, ``guest_forgot``, ``unresolved``: vmnet.probe.result. A row with ``error`` has no measurements.
    """

    scheme: str
    rate_pps: int
    size_bytes: int
    run: int
    guest: str
    control: bool
    sent: int | None = None
    lost: int | None = None
    duplicated: int | None = None
    reordered: int | None = None
    longest_gap_ms: float | None = None
    compute_downtime_ms: float | None = None
    total_ms: float | None = None
    gap_minus_downtime_ms: float | None = None
    lost_out: int | None = None
    lost_back: int | None = None
    duplicated_out: int | None = None
    duplicated_back: int | None = None
    reordered_out: int | None = None
    reordered_back: int | None = None
    gap_out_ms: float | None = None
    gap_back_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    dropped_here: int | None = None
    guest_resent: int | None = None
    guest_forgot: int | None = None
    guest_dropped: int | None = None
    unresolved: int | None = None
    seconds: float | None = None
    source: str = ""
    lost_out_sent_ms: Sequence[tuple[float, float]] = ()
    """When those of ``lost_out`` were sent, in ms from the guest's STOP: ranges, ends included."""
    verdict: Mapping[str, Any] | None = None
    platform: str = ""
    """Of a host that is a machine: its kernel, libvirt and QEMU."""
    error: str = ""

    @property
    def case(self) -> Case:
        return Case(self.scheme, self.rate_pps, self.size_bytes, self.guest)

    def to_json(self) -> dict[str, Any]:
        """All columns; some only where there is something to say."""
        return {k: v for k, v in asdict(self).items() if k not in _SOMETIMES or v}


def failed(case: Case, run: int, control: bool, source: str, error: str) -> Row:
    return Row(**asdict(case), run=run, control=control, source=source, error=error)


def measured(
    case: Case,
    run: int,
    found: Mapping[str, Any],
    *,
    source: str,
    over: Switchover | None = None,
    total_ms: float | None = None,
    verdict: Mapping[str, Any] | None = None,
) -> Row:
    """``found`` is what ``vmnet probe --json`` gives as its result; without ``total_ms`` it is a control row."""
    downtime_ms = over.downtime_ms if over is not None else None
    out: Direction = found["out"]
    back: Direction = found["back"]
    same = ("sent", "lost", "duplicated", "reordered", "longest_gap_ms", "latency_p50_ms", "latency_p99_ms")
    return Row(
        **asdict(case),
        run=run,
        control=total_ms is None,
        source=source,
        compute_downtime_ms=_rounded(downtime_ms),
        total_ms=_rounded(total_ms),
        gap_minus_downtime_ms=_rounded(_minus(found["longest_gap_ms"], downtime_ms)),
        lost_out=out["lost"],
        lost_back=back["lost"],
        duplicated_out=out["duplicated"],
        duplicated_back=back["duplicated"],
        reordered_out=out["reordered"],
        reordered_back=back["reordered"],
        gap_out_ms=out["longest_gap_ms"],
        gap_back_ms=back["longest_gap_ms"],
        dropped_here=found["dropped_here"],
        guest_resent=found["guest_resent"],
        guest_forgot=found["guest_forgot"],
        guest_dropped=found["guest_dropped"],
        unresolved=found["unresolved"] or None,
        seconds=found["seconds"],
        lost_out_sent_ms=_from_stop(out.get("missing_sent", ()), over),
        verdict=verdict,
        **{name: found[name] for name in same},
    )


def _from_stop(sent: Iterable[Sequence[float]], over: Switchover | None) -> tuple[tuple[float, float], ...]:
    if over is None:
        return ()
    return tuple(
        (round((first - over.stop) * 1e3, 1), round((last - over.stop) * 1e3, 1)) for first, last in sent
    )


def _minus(gap: float, downtime: float | None) -> float | None:
    return None if downtime is None else gap - downtime


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, extremes and quartiles (nearest rank); ``None`` of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "median": round(median(ordered), 3),
        "min": ordered[0],
        "q1": ordered[round(last * 0.25)],
        "q3": ordered[round(last * 0.75)],
        "max": ordered[last],
    }


def summarise(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One entry for each case and for its control, in the order of first appearance."""
    return [{**entry, **_counted(good)} for entry, good in spreads(rows, MEASURED)]


def _counted(good: Sequence[Row]) -> dict[str, Any]:
    return {
        "guest_went_back": sum(bool(row.guest_resent or row.guest_forgot) for row in good),
        "lost_none": sum(row.lost == 0 for row in good),
    }


class Measurement(Protocol):
    """What a row of any bench of migrations has. ``case``: a dataclass, what is varied."""

    @property
    def case(self) -> Any: ...
    @property
    def control(self) -> bool: ...
    @property
    def error(self) -> str: ...


R = TypeVar("R", bound=Measurement)


def spreads(rows: Iterable[R], measured: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[R]]]:
    """For each case and its control, in the order of first appearance: how what was ``measured`` spreads, and its good rows."""
    groups: dict[tuple[Any, bool], list[R]] = {}
    for row in rows:
        groups.setdefault((row.case, row.control), []).append(row)
    for (case, control), group in groups.items():
        good = [row for row in group if not row.error]
        entry = {**asdict(case), "control": control, "runs": len(good), "errors": len(group) - len(good)}
        for name in measured:
            entry[name] = spread([value for row in good if (value := getattr(row, name)) is not None])
        yield entry, good
