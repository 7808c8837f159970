"""What a migration did to the network, in one record: counted where it can be counted, and said where it cannot. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """``lost``: frames dropped for want of room, or in the tunnel between the hosts.

    ``possible_duplicates``: sent again because the guest may not have taken them.

    ``unaccounted``: frames sent to a destination that has not said what it received.

    ``ordered``: the direct path opened only after the old one was known to be empty. Times in ms; None where not measured.
    """

    vm: str
    source: str
    destination: str
    mode: str
    outcome: str
    lost: int = 0
    unaccounted: int = 0
    possible_duplicates: int = 0
    ordered: bool = True
    held: int = 0
    stranded: int = 0
    diverted: int = 0
    direct: int = 0
    duplicates_removed: int = 0
    compute_downtime_ms: float | None = None
    network_gap_ms: float | None = None
    total_ms: float | None = None
    passes: int = 0
    memory_bytes: int = 0
    generation: int = 0
    connections: int = 0
    """Entries of the source's connection tracking that its filter let through, and that the destination's knows now."""
    paused: bool = False
    """The VM has arrived, and does not run yet: what becomes of the packets for it is not known."""
    rerouted: bool | None = None
    """Whether the fabric sends to the destination for certain; None: it is not told, it learns."""
    notes: tuple[str, ...] = field(default=())
    unprotected: tuple[str, ...] = field(default=())
    """The VM's interfaces that none of the figures is about: nothing was held there."""

    @property
    def clean(self) -> bool:
        known = not self.lost and not self.unaccounted
        whole = self.ordered and self.rerouted is not False and not self.unprotected and not self.paused
        return self.outcome == "done" and known and whole

    def to_json(self) -> dict[str, Any]:
        lists = {"notes": list(self.notes), "unprotected": list(self.unprotected)}
        return {**asdict(self), **lists, "clean": self.clean}

    def lines(self) -> list[str]:
        """For people: what happened, then the figures."""
        if self.outcome != "done":
            losses = [f"{self.lost} packets for it were lost"] if self.lost else []
            why = "; ".join([*self.notes, *losses]) or self.outcome
            return [f"{self.vm} stays on {self.source}: {why}"]
        order = "none reordered" if self.ordered else "order not certain"
        lost = f"{self.lost} lost" + (f", {self.unaccounted} unaccounted for" if self.unaccounted else "")
        state = "has arrived paused on" if self.paused else "runs on"
        head = f"{self.vm} {state} {self.destination}: {lost}, {self.possible_duplicates} possibly twice, {order}"
        figures = (
            f"held {self.held}, stranded and recovered {self.stranded}, diverted {self.diverted}, "
            f"waited for the old path {self.direct}"
            + (f", connections carried over {self.connections}" if self.connections else "")
        )
        times = (
            f"compute downtime {_ms(self.compute_downtime_ms)}, network gap {_ms(self.network_gap_ms)}, "
            f"total {_ms(self.total_ms)}, {self.passes} passes, {self.memory_bytes >> 20} MiB"
        )
        apart = [f"not protected: {one}: what it lost is not counted" for one in self.unprotected]
        return [head, figures, times, *apart, *self.notes]


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} ms"
