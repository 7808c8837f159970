"""One run of the router bench is one row; rows add up to a summary. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from vmnet.bench.flaps import Look, flaps
from vmnet.bench.flow_count import FlowResult
from vmnet.bench.libvirt_job import Job
from vmnet.bench.rows import spreads

MEASURED = (
    "sent",
    "lost",
    "duplicated",
    "reordered",
    "gap_ms",
    "delay_p99_ms",
    "delay_max_ms",
    "downtime_ms",
    "total_ms",
    "memory_mib",
    "pages_again",
    "control_lost",
    "control_duplicated",
    "control_gap_ms",
    "control_p99_ms",
    "network_gap_ms",
    "prepared_ms",
    "cut_ms",
    "gone_ms",
    "back_lost",
    "back_duplicated",
    "back_reordered",
    "back_network_gap_ms",
)


_RARE = (
    "network_gap_ms", "flows", "prepared_ms", "cut_ms", "gone_ms",
    "back_sent", "back_lost", "back_duplicated", "back_reordered",
    "back_gap_ms", "back_sender_gap_ms", "back_network_gap_ms", "back_delay_max_ms",
    "error", "verdict", "lost_ranges", "reordered_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """What is varied. ``size_bytes``: of the IP packet."""

    scheme: str
    rate_pps: int
    size_bytes: int
    ip_version: int = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One run to be made."""

    case: Case
    run: int
    control: bool

    @property
    def key(self) -> tuple[Case, int, bool]:
        return self.case, self.run, self.control


@dataclass(frozen=True, slots=True)
class Row:
    """A control row is the same traffic without a migration. A row with ``error`` has no measurements.

    ``downtime_ms``: of the VM, from QEMU's STOP on the source to its RESUME on the destination. ``total_ms``: wall clock of the
    migrate command. Data is the flow through the router (``FlowResult``); ``control_*`` are packets to and from the router's own
    address. ``flaps_*``: sessions of both neighbours that went down. ``routes_*``: of the client, by BGP, in its kernel.

    Where flows migrate there is no VM: ``downtime_ms`` is the longest ``network_gap_ms`` of both ways beyond that of the controls.
    From the first message to a switch: ``prepared_ms`` until the new paths are there, ``cut_ms`` until the forks have answered,
    ``total_ms`` until they have been read back, ``gone_ms`` until the old paths are gone. ``back_*``: the flow from server to client.
    """

    scheme: str
    rate_pps: int
    size_bytes: int
    ip_version: int
    run: int
    control: bool
    source: str = ""
    downtime_ms: float | None = None
    libvirt_downtime_ms: int | None = None
    total_ms: float | None = None
    memory_mib: float | None = None
    pages_again: int | None = None
    passes: int | None = None
    sent: int | None = None
    received: int | None = None
    lost: int | None = None
    duplicated: int | None = None
    reordered: int | None = None
    dropped_here: int | None = None
    gap_ms: float | None = None
    gap_began_s: float | None = None
    sender_gap_ms: float | None = None
    delay_p50_ms: float | None = None
    delay_p99_ms: float | None = None
    delay_p999_ms: float | None = None
    delay_max_ms: float | None = None
    seconds: float | None = None
    control_sent: int | None = None
    control_lost: int | None = None
    control_duplicated: int | None = None
    control_reordered: int | None = None
    control_gap_ms: float | None = None
    control_p50_ms: float | None = None
    control_p99_ms: float | None = None
    guest_resent: int | None = None
    guest_forgot: int | None = None
    flaps_bfd: int | None = None
    flaps_bgp: int | None = None
    flaps_ospf: int | None = None
    routes_before: int | None = None
    routes_after: int | None = None
    network_gap_ms: float | None = None
    flows: int | None = None
    prepared_ms: float | None = None
    cut_ms: float | None = None
    gone_ms: float | None = None
    back_sent: int | None = None
    back_lost: int | None = None
    back_duplicated: int | None = None
    back_reordered: int | None = None
    back_gap_ms: float | None = None
    back_sender_gap_ms: float | None = None
    back_network_gap_ms: float | None = None
    back_delay_max_ms: float | None = None
    lost_ranges: Sequence[Sequence[int]] = ()
    reordered_s: Sequence[float] = ()
    verdict: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def case(self) -> Case:
        return Case(self.scheme, self.rate_pps, self.size_bytes, self.ip_version)

    @property
    def flapped(self) -> int:
        return (self.flaps_bfd or 0) + (self.flaps_bgp or 0) + (self.flaps_ospf or 0)

    def to_json(self) -> dict[str, Any]:
        """All columns; those of one scheme alone, and the last four, only where there is something in them."""
        return {k: v for k, v in asdict(self).items() if k not in _RARE or v or v == 0}


@dataclass(frozen=True, slots=True)
class Moved:
    """What only a migration has."""

    downtime_ms: float
    total_ms: float
    job: Job
    verdict: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What every run has. ``control``: the result of ``vmnet probe``. Looks at the neighbours, the client first."""

    data: FlowResult
    control: Mapping[str, Any]
    before: Sequence[Look]
    after: Sequence[Look]


def failed(case: Case, run: int, control: bool, source: str, error: str) -> Row:
    return Row(**asdict(case), run=run, control=control, source=source, error=error)


def measured(case: Case, run: int, source: str, seen: Observed, moved: Moved | None = None) -> Row:
    """Without ``moved`` it is a control row."""
    columns = {**data_columns(seen.data), **_control(seen.control), **_neighbours(seen), **_moved(moved)}
    return Row(**asdict(case), run=run, control=moved is None, source=source, **columns)


def data_columns(found: FlowResult) -> dict[str, Any]:
    known = {one.name for one in fields(Row)}
    same = {name: value for name, value in found.to_json().items() if name in known}
    return {**same, "gap_ms": found.longest_gap_ms}


def _control(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "control_sent": found["sent"],
        "control_lost": found["lost"],
        "control_duplicated": found["duplicated"],
        "control_reordered": found["reordered"],
        "control_gap_ms": found["longest_gap_ms"],
        "control_p50_ms": found["latency_p50_ms"],
        "control_p99_ms": found["latency_p99_ms"],
        "guest_resent": found["guest_resent"],
        "guest_forgot": found["guest_forgot"],
    }


def _neighbours(seen: Observed) -> dict[str, Any]:
    each = [flaps(before, after) for before, after in zip(seen.before, seen.after, strict=True)]
    totals = {f"flaps_{protocol}": sum(one[protocol] for one in each) for protocol in ("bfd", "bgp", "ospf")}
    return {**totals, "routes_before": seen.before[0].routes, "routes_after": seen.after[0].routes}


def _moved(moved: Moved | None) -> dict[str, Any]:
    if moved is None:
        return {}
    job = moved.job
    return {
        "downtime_ms": round(moved.downtime_ms, 3),
        "total_ms": round(moved.total_ms, 3),
        "libvirt_downtime_ms": job.downtime_ms,
        "memory_mib": None if job.memory_bytes is None else round(job.memory_bytes / (1 << 20), 1),
        "pages_again": job.pages_again,
        "passes": job.passes,
        "verdict": moved.verdict,
    }


def summarise(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One entry for each case and for its control, in the order of first appearance."""
    return [{**entry, **_counted(good)} for entry, good in spreads(rows, MEASURED)]


def _counted(good: Sequence[Row]) -> dict[str, Any]:
    return {
        "sent_in_all": sum(row.sent or 0 for row in good),
        "lost_in_all": sum(row.lost or 0 for row in good),
        "back_sent_in_all": sum(row.back_sent or 0 for row in good),
        "back_lost_in_all": sum(row.back_lost or 0 for row in good),
        "lost_none": sum(row.lost == 0 and not row.back_lost for row in good),
        "flapped": sum(bool(row.flapped) for row in good),
        "routes_kept": sum(row.routes_before == row.routes_after for row in good),
        "days": sorted({_day(row.gap_began_s) for row in good if row.gap_began_s}),
    }


def _day(seconds: float) -> str:
    """Of a time of the Unix clock; UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
