"""What a pair of packet streams lost, duplicated, reordered, and for how long it was silent; pure.

Sequence numbers run 0, 1, 2, ... ``sent - 1`` in each direction. Times are integers, nanoseconds of the Unix clock.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmnet.probe import wire

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """One direction. ``missing`` are ranges of lost sequence numbers, ends included; ``strange`` had a seq never sent."""

    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    missing: Ranges = ()
    strange: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without a new packet, and when it began."""

    ns: int = 0
    begin_ns: int = 0

    @property
    def ms(self) -> float:
        return round(self.ns / 1e6, 3)


@dataclass(slots=True)
class Arrivals:
    """Decoded packets of the guest, in order of arrival.

    ``seqs``/``times``: every packet and the kernel's time of its arrival. ``progress``/``received``/``highest``: when the
    guest's count of the client's packets was first seen at a value, reckoned back to when the guest took the last of them, and
    the highest it had then. ``latencies``: time of one round trip without the guest's hold, for each packet that acknowledges a
    new highest one.
    """

    seqs: array[int]
    times: array[int]
    progress: array[int]
    received: array[int]
    highest: array[int]
    latencies: array[int]


def decode(
    records: bytes | bytearray, times: Sequence[int], session: int, sent_ns: Sequence[int]
) -> Arrivals:
    """``records`` are packets cut to ``wire.DATA_LEN``, ``times`` their arrivals, ``sent_ns[seq]`` when the client sent them."""
    tag = session & wire.NONE
    best_received, best_highest = 0, -1
    out = Arrivals(array("I"), array("q"), array("q"), array("I"), array("I"), array("q"))
    for (magic, kind, stream, seq, highest, received, hold), at in zip(
        wire.iter_data(records), times, strict=True
    ):
        if magic != wire.MAGIC or kind != wire.Type.DATA or stream != tag:
            continue
        out.seqs.append(seq)
        out.times.append(at)
        taken = at - hold * 1000
        if received > best_received:
            best_received = received
            out.progress.append(taken)
            out.received.append(received)
            out.highest.append(highest)
        if best_highest < highest < len(sent_ns):
            best_highest = highest
            out.latencies.append(taken - sent_ns[highest])
    return out


def count(seqs: Iterable[int], sent: int) -> Counts:
    """Counts a direction from its arrivals. Reordered: a first arrival below the highest seen before it."""
    seen = bytearray(sent)
    received = duplicated = reordered = strange = 0
    highest = -1
    for seq in seqs:
        if seq >= sent:
            strange += 1
        elif seen[seq]:
            duplicated += 1
        else:
            seen[seq] = 1
            received += 1
            if seq > highest:
                highest = seq
            else:
                reordered += 1
    return Counts(sent, received, sent - received, duplicated, reordered, missing_ranges(seen), strange)


def missing_ranges(seen: bytes | bytearray) -> Ranges:
    """Ranges, ends included, of the positions that are zero."""
    ranges: list[tuple[int, int]] = []
    first = seen.find(0)
    while first >= 0:
        beyond = seen.find(1, first)
        beyond = len(seen) if beyond < 0 else beyond
        ranges.append((first, beyond - 1))
        first = seen.find(0, beyond)
    return tuple(ranges)


def first_arrivals(seqs: Sequence[int], times: Sequence[int]) -> array[int]:
    """The arrival times without those of duplicates."""
    known: set[int] = set()
    out = array("q")
    for seq, at in zip(seqs, times, strict=True):
        if seq not in known:
            known.add(seq)
            out.append(at)
    return out


def longest_gap(times: Iterable[int], end_ns: int | None = None) -> Gap:
    """The longest silence between neighbours, in order of time; with ``end_ns`` also the one from the last until then."""
    best = Gap()
    previous: int | None = None
    for at in sorted(times):
        if previous is not None and at - previous > best.ns:
            best = Gap(at - previous, previous)
        previous = at
    if previous is not None and end_ns is not None and end_ns - previous > best.ns:
        best = Gap(end_ns - previous, previous)
    return best


def percentile(values: Sequence[int], percent: float) -> int | None:
    """Nearest rank; ``None`` of nothing."""
    if not values:
        return None
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[min(max(rank, 1), len(values)) - 1]


def resent(records: bytes | bytearray, session: int) -> int:
    """How many packets the guest itself sent again: same seq, other content. A network's copy is the same byte for byte.

    A guest whose memory went back in time does so: see docs/bench.md on TCG.
    """
    tag = session & wire.NONE
    known: dict[int, tuple[int, ...]] = {}
    found = 0
    for magic, kind, stream, seq, *content in wire.iter_data(records):
        if magic == wire.MAGIC and kind == wire.Type.DATA and stream == tag:
            found += known.setdefault(seq, tuple(content)) != tuple(content)
    return found


def forgotten(acknowledged: Iterable[tuple[int, int]], missing: Ranges) -> int:
    """How many packets the guest reports missing though it had them.

    ``acknowledged``: (highest, received) as the guest said at some time. Of the packets up to ``highest`` it then lacked
    ``highest + 1 - received``; if the final report lacks more of them, it has forgotten the difference.
    """
    most, below, at = 0, 0, 0
    for highest, received in acknowledged:
        while at < len(missing) and missing[at][1] <= highest:
            below += missing[at][1] - missing[at][0] + 1
            at += 1
        partly = max(0, highest - missing[at][0] + 1) if at < len(missing) else 0
        most = max(most, below + partly - (highest + 1 - received))
    return most


def outgoing(report: wire.Report, sent: int, missing: Ranges, forgot: int) -> Counts:
    """The client's direction, from what the guest counted; what it forgot was not lost."""
    received = report.received + forgot
    return Counts(
        sent, received, sent - received, report.duplicated, report.reordered, missing, report.ignored
    )
