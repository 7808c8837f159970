"""How busy a host is, as one daemon tells another; checked as it comes in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dom0.claim import field
from vmnet.errors import PeerError

_MOST_CPUS, _MOST_BYTES = 1 << 16, 1 << 60


@dataclass(frozen=True)
class HostFacts:
    """``cpu_percent``: of all processors together over the last second, 0 to 100."""

    cpu_percent: float
    cpus: int
    memory_available_bytes: int
    memory_total_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> HostFacts:
        """PeerError if a figure is missing or cannot be."""
        percent: object = message.get("cpu_percent")
        if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
            raise PeerError(
                "the peer's 'cpu_percent' is no number from 0 to 100",
                "do both daemons have the same version?",
            )
        total = field(message, "memory_total_bytes", int, 1, _MOST_BYTES)
        return cls(
            float(percent),
            field(message, "cpus", int, 1, _MOST_CPUS),
            field(message, "memory_available_bytes", int, 0, total),
            total,
        )


def busy_percent(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Of ``psutil.cpu_times()``, as ``psutil.cpu_percent()`` computes it (which keeps its own state, or blocks)."""
    spent = {name: max(0.0, after[name] - before[name]) for name in after.keys() & before.keys()}
    # user and nice have the guests' time in them already
    total = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
    if total <= 0:
        return 0.0
    idle = spent.get("idle", 0.0) + spent.get("iowait", 0.0)
    return min(100.0, max(0.0, 100.0 * (total - idle) / total))
