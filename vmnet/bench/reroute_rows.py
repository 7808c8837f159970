"""One rerouting is one row; rows add up to a summary. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from vmnet.bench import rows

MEASURED = (
    "install_ms",
    "cut_ms",
    "changes_per_s",
    "confirmed_ms",
    "first_packet_ms",
    "lost",
    "duplicated",
    "reordered",
    "longest_gap_ms",
)
PISA_MS = 5.0
"""Pisa 2010, section 3: a flow migrates in less, with NOX and hardware switches."""


@dataclass(frozen=True, slots=True)
class Case:
    """``rate_pps``: packets a second that take the path meanwhile; 0: none."""

    scheme: str
    flows: int
    rate_pps: int


@dataclass(frozen=True, slots=True)
class Row:
    """Times from the first message (of another program: from its start).

    ``install_ms``: until the new path is there; ``cut_ms``: how long the change of the fork's entries took until it was answered;
    ``changes_per_s``: all flow mods of both, encoding included; ``confirmed_ms``: until both had been read back from the switches;
    ``first_packet_ms``: from the beginning of the cut to a packet on the new path. A control row is the same traffic alone.
    """

    scheme: str
    flows: int
    rate_pps: int
    run: int
    control: bool = False
    install_ms: float | None = None
    cut_ms: float | None = None
    changes_per_s: float | None = None
    confirmed_ms: float | None = None
    first_packet_ms: float | None = None
    sent: int | None = None
    lost: int | None = None
    duplicated: int | None = None
    reordered: int | None = None
    longest_gap_ms: float | None = None
    error: str = ""

    @property
    def case(self) -> Case:
        return Case(self.scheme, self.flows, self.rate_pps)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "error" or value}


def summarise(done: Iterable[Row]) -> list[dict[str, Any]]:
    """One entry for each case and its control."""
    return [
        {
            **entry,
            "sent": sum(row.sent or 0 for row in good),
            "lost_in_all": sum(row.lost or 0 for row in good),
        }
        for entry, good in rows.spreads(done, MEASURED)
    ]
