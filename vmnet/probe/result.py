"""What one measurement found: for people (rows), for machines (``to_json``), for plots (``Timeline``)."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from vmnet.probe.meter import Counts, Gap, Ranges


@dataclass(frozen=True, slots=True)
class Timeline:
    """When packets went and came, nanoseconds of the Unix clock. "out" is client to guest, "back" guest to client.

    ``out_acked``, ``out_acked_count``: when the guest had how many of the client's packets (vmnet.probe.meter.Arrivals).
    """

    out_sent: array[int] = field(default_factory=lambda: array("q"))
    out_missing: Ranges = ()
    back_seqs: array[int] = field(default_factory=lambda: array("I"))
    back_times: array[int] = field(default_factory=lambda: array("q"))
    back_missing: Ranges = ()
    out_acked: array[int] = field(default_factory=lambda: array("q"))
    out_acked_count: array[int] = field(default_factory=lambda: array("I"))

    def to_json(self) -> dict[str, object]:
        """Microseconds from ``t0`` (Unix seconds)."""
        t0 = self.out_sent[0] if self.out_sent else 0
        return {
            "event": "timeline",
            "t": t0 / 1e9,
            "t0": t0 / 1e9,
            "out_us": [(t - t0) // 1000 for t in self.out_sent],
            "out_missing": self.out_missing,
            "acked_us": [(t - t0) // 1000 for t in self.out_acked],
            "acked_count": list(self.out_acked_count),
            "back_seq": list(self.back_seqs),
            "back_us": [(t - t0) // 1000 for t in self.back_times],
            "back_missing": self.back_missing,
        }


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Both directions. Gaps: ``vmnet.probe.meter``; latency is a round trip without the guest's hold.

    ``guest_resent``, ``guest_forgot``: packets sent twice or forgotten by a guest whose memory went back in time; not the
    network's doing, so neither duplicated nor lost (``vmnet.probe.meter``). ``guest_dropped``: of those lost, what the guest's own
    kernel had no room for in its socket. ``unresolved``: of those lost, sent while this host had no MAC address to send them to.
    """

    settings: tuple[str, int, int]
    out: Counts
    back: Counts
    gap_out: Gap
    gap_back: Gap
    latency_p50_ns: int | None
    latency_p99_ns: int | None
    seconds: float
    dropped_here: int
    guest_resent: int
    guest_forgot: int
    guest_dropped: int
    unresolved: int
    timeline: Timeline

    @property
    def longest_gap_ms(self) -> float:
        return max(self.gap_out.ms, self.gap_back.ms)

    def _missing_sent(self) -> list[tuple[float, float]]:
        """When the lost ones of each range of ``out.missing`` were sent, first and last (Unix seconds)."""
        sent = self.timeline.out_sent
        return [(sent[first] / 1e9, sent[last] / 1e9) for first, last in self.out.missing if last < len(sent)]

    def to_json(self) -> dict[str, object]:
        target, rate, size = self.settings
        return {
            "target": target,
            "rate_pps": rate,
            "size_bytes": size,
            "seconds": round(self.seconds, 3),
            "sent": self.out.sent + self.back.sent,
            "received": self.out.received + self.back.received,
            "lost": self.out.lost + self.back.lost,
            "duplicated": self.out.duplicated + self.back.duplicated,
            "reordered": self.out.reordered + self.back.reordered,
            "longest_gap_ms": self.longest_gap_ms,
            "latency_p50_ms": _ms(self.latency_p50_ns),
            "latency_p99_ms": _ms(self.latency_p99_ns),
            "dropped_here": self.dropped_here,
            "guest_resent": self.guest_resent,
            "guest_forgot": self.guest_forgot,
            "guest_dropped": self.guest_dropped,
            "unresolved": self.unresolved,
            "out": {**_direction(self.out, self.gap_out), "missing_sent": self._missing_sent()},
            "back": _direction(self.back, self.gap_back),
        }


def _ms(ns: int | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 3)


def _direction(counts: Counts, gap: Gap) -> dict[str, object]:
    return {
        "sent": counts.sent,
        "received": counts.received,
        "lost": counts.lost,
        "duplicated": counts.duplicated,
        "reordered": counts.reordered,
        "longest_gap_ms": gap.ms,
        "longest_gap_at": gap.begin_ns / 1e9,
        "missing": counts.missing,
    }
