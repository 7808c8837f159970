"""Rows of the router bench without a router. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vmnet.bench import pisa_rows
from vmnet.bench.flow_count import FlowResult
from vmnet.bench.pisa_rows import Row, Step

if TYPE_CHECKING:
    from controller_bridge.by_hand import Times

LEAST_OF_RATE = 0.8
"""Of a rate, for it to be one: senders share their processors with the switches."""
_BACK = ("sent", "lost", "duplicated", "reordered", "sender_gap_ms", "network_gap_ms", "delay_max_ms")


@dataclass(frozen=True, slots=True)
class Rerouted:
    flows: int
    times: Times


def measured(
    step: Step,
    source: str,
    there: FlowResult,
    back: FlowResult,
    moved: Rerouted | None,
    rows: Sequence[Row],
) -> Row:
    """``there``: client to server. ``rows``: with the controls of this case. Without ``moved`` it is a control row."""
    columns: dict[str, Any] = {
        **pisa_rows.data_columns(there),
        **{f"back_{name}": value for name in _BACK if (value := getattr(back, name)) is not None},
        "back_gap_ms": back.longest_gap_ms,
    }
    if moved is not None:
        gap_ms = max(there.network_gap_ms, back.network_gap_ms)
        columns |= {
            "flows": moved.flows,
            "downtime_ms": downtime_ms(gap_ms, step, rows),
            **_times(moved.times),
        }
    return Row(**asdict(step.case), run=step.run, control=moved is None, source=source, **columns)


def _times(times: Times) -> dict[str, float]:
    return {
        "prepared_ms": _ms(times.prepared_s),
        "cut_ms": _ms(times.cut_s),
        "total_ms": _ms(times.confirmed_s),
        "gone_ms": _ms(times.gone_s),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def downtime_ms(gap_ms: float, step: Step, rows: Sequence[Row]) -> float | None:
    """What the longest gap of either flow has beyond the controls' longest; None without a control."""
    controls = [row for row in rows if row.control and row.case == step.case and not row.error]
    if not controls:
        return None
    usual = max(max(row.network_gap_ms or 0, row.back_network_gap_ms or 0) for row in controls)
    return round(max(0.0, gap_ms - usual), 3)


def not_carried(controls: Sequence[Row]) -> str:
    """Why a migration at the rate of these controls would show nothing; empty if it does."""
    if lost := sum((row.lost or 0) + (row.back_lost or 0) for row in controls):
        return f"without a migration the switches lost {lost} packets at this rate"
    for row in controls:
        slower = min(row.sent or 0, row.back_sent or 0) / row.seconds if row.seconds else 0.0
        if slower < LEAST_OF_RATE * row.rate_pps:
            return f"only {slower:.0f} packets/s of this rate could be sent each way beside the switches"
    return ""
