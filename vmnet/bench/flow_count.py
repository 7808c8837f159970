"""What became of the numbered packets of one flow; pure. The meter of ``vmnet bench pisa`` and ``vmnet bench forward``."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from vmnet.probe import meter, wire

_IPV4_UDP, _IPV6_UDP = 28, 48
_MOST_RANGES = 20


@dataclass(frozen=True, slots=True)
class FlowResult:
    """One flow. ``delay_*``: from before the system call that sent a packet to the kernel's time stamp of its arrival.

    ``sender_gap_ms``: the longest pause of the sender itself, the most that is its part of ``longest_gap_ms``. ``network_gap_ms``: the
    longest gap beyond what the sender paused in it. ``strange``: numbers never sent. ``dropped_here``: the receiver's own buffer was
    full. ``lost_ranges``: the first of them, ends included. ``reordered_s``: when, the first and the last.
    """

    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    strange: int
    dropped_here: int
    longest_gap_ms: float
    gap_began_s: float
    sender_gap_ms: float
    network_gap_ms: float
    delay_p50_ms: float | None
    delay_p99_ms: float | None
    delay_p999_ms: float | None
    delay_max_ms: float | None
    seconds: float
    lost_ranges: tuple[tuple[int, int], ...] = ()
    reordered_s: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> FlowResult:
        ranges = tuple((first, last) for first, last in found["lost_ranges"])
        others = {name: found[name] for name in cls.__slots__ if name not in ("lost_ranges", "reordered_s")}
        return cls(**others, lost_ranges=ranges, reordered_s=tuple(found["reordered_s"]))


def payload_bytes(packet_bytes: int, ipv6: bool) -> int:
    """UDP payload of an IP packet of that size; at least the 22 bytes that number a packet (so 70 is the least over IPv6)."""
    return max(wire.DATA_LEN, packet_bytes - (_IPV6_UDP if ipv6 else _IPV4_UDP))


def own(records: bytes | bytearray, times: Sequence[int], session: int) -> tuple[array[int], array[int]]:
    """Numbers and arrival times of the packets that are of this flow."""
    tag = session & wire.NONE
    seqs, arrivals = array("I"), array("q")
    for (magic, kind, stream, seq, *_), at in zip(wire.iter_data(records), times, strict=True):
        if magic == wire.MAGIC and kind == wire.Type.DATA and stream == tag:
            seqs.append(seq)
            arrivals.append(at)
    return seqs, arrivals


def result(
    seqs: Sequence[int], arrivals: Sequence[int], sent_ns: Sequence[int], end_ns: int, dropped_here: int
) -> FlowResult:
    """``sent_ns[seq]``: when it was sent; ``end_ns``: when nothing was sent any more. Nanoseconds of the Unix clock."""
    counts = meter.count(seqs, len(sent_ns))
    gap = meter.longest_gap(meter.first_arrivals(seqs, arrivals), end_ns)
    delays = sorted(at - sent_ns[seq] for seq, at in zip(seqs, arrivals, strict=True) if seq < len(sent_ns))
    return FlowResult(
        sent=counts.sent,
        received=counts.received,
        lost=counts.lost,
        duplicated=counts.duplicated,
        reordered=counts.reordered,
        strange=counts.strange,
        dropped_here=dropped_here,
        longest_gap_ms=gap.ms,
        gap_began_s=gap.begin_ns / 1e9,
        sender_gap_ms=meter.longest_gap(sent_ns, end_ns).ms,
        network_gap_ms=round(held_up_ns(seqs, arrivals, sent_ns, end_ns) / 1e6, 3),
        delay_p50_ms=_ms(meter.percentile(delays, 50)),
        delay_p99_ms=_ms(meter.percentile(delays, 99)),
        delay_p999_ms=_ms(meter.percentile(delays, 99.9)),
        delay_max_ms=_ms(delays[-1] if delays else None),
        seconds=(end_ns - sent_ns[0]) / 1e9 if sent_ns else 0.0,
        lost_ranges=counts.missing[:_MOST_RANGES],
        reordered_s=disorder(seqs, arrivals),
    )


def held_up_ns(seqs: Sequence[int], arrivals: Sequence[int], sent_ns: Sequence[int], end_ns: int) -> int:
    """The longest silence at the receiver, less the sender's longest pause between the packets on both sides of it."""
    first = sorted((at, seq) for seq, at in first_of_each(seqs, arrivals).items() if seq < len(sent_ns))
    sending = [*sent_ns, end_ns]
    worst = 0
    for (at, seq), (then, following) in pairwise([*first, (end_ns, len(sent_ns))]):
        if then - at > worst:
            pauses = (after - before for before, after in pairwise(sending[seq : following + 1]))
            worst = max(worst, then - at - max(pauses, default=0))
    return worst


def first_of_each(seqs: Sequence[int], arrivals: Sequence[int]) -> dict[int, int]:
    """Number -> when it came first."""
    found: dict[int, int] = {}
    for seq, at in zip(seqs, arrivals, strict=True):
        found.setdefault(seq, at)
    return found


def disorder(seqs: Sequence[int], arrivals: Sequence[int]) -> tuple[float, ...]:
    """When the first and when the last packet arrived below the highest before it, Unix seconds; nothing if none did."""
    highest = -1
    found: list[float] = []
    for seq, at in zip(seqs, arrivals, strict=True):
        if seq < highest:
            found.append(at / 1e9)
        highest = max(highest, seq)
    return (found[0], found[-1]) if found else ()


def _ms(ns: int | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 3)
