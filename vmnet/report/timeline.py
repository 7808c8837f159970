"""The picture of one switchover: what the migration did, and every packet of a probe in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from vmnet.report import style
from vmnet.report.events import Event, Span, first, spans

MARKS = {"divert": "divert", "stop": "stop", "resume": "resume", "marker": "marker", "verdict": "finished"}
_LANES = ("pass", "diverting", "stopped", "draining")


def draw(
    file: Path,
    events: Sequence[Event],
    packets: Mapping[str, Any] | None = None,
    title: str = "",
    around_ms: float = 400.0,
) -> None:
    """Writes an image. ``packets`` is a probe's "timeline" event; shown is ``around_ms`` on either side of the switchover."""
    plt = style.pyplot()
    origin = _origin(events, packets)
    heights = [1.1, 3, 3] if packets else [1.1]
    figure, axes = plt.subplots(
        len(heights),
        1,
        sharex=True,
        figsize=(10, 7 if packets else 2.2),
        height_ratios=heights,
        squeeze=False,
    )
    column = [row[0] for row in axes]
    window = _window(events, packets, origin, around_ms)
    _phases(column[0], events, origin, window)
    if packets:
        _out(column[1], packets, origin, window)
        _back(column[2], packets, origin, window)
    for axis in column:
        _marks(axis, events, origin)
    column[0].set_xlim(*window)
    if title:
        column[0].set_title(title, loc="left", pad=8, fontweight="bold")
    column[-1].set_xlabel("milliseconds, guest stops at 0" if first(events, "stop") else "milliseconds")
    style.save(figure, file)


def _origin(events: Sequence[Event], packets: Mapping[str, Any] | None) -> float:
    stop = first(events, "stop")
    if stop is not None:
        return stop
    return float(packets["t0"]) if packets else min((e["t"] for e in events), default=0.0)


def _window(
    events: Sequence[Event], packets: Mapping[str, Any] | None, origin: float, around_ms: float
) -> tuple[float, float]:
    """The switchover with ``around_ms`` on either side; all there is when nothing switched."""
    moments = [(t - origin) * 1e3 for n in MARKS if n != "verdict" and (t := first(events, n)) is not None]
    if first(events, "stop") is not None:
        return min(moments) - around_ms, max(moments) + around_ms
    times = [(event["t"] - origin) * 1e3 for event in events]
    if packets:
        shift = (packets["t0"] - origin) * 1e3
        times += [us / 1e3 + shift for us in chain(packets["out_us"][-1:], packets["back_us"][-1:], (0,))]
    return (min(times, default=0.0), max(times, default=1.0))


def _phases(axis: Any, events: Sequence[Event], origin: float, window: tuple[float, float]) -> None:
    lanes = {name: i for i, name in enumerate(_LANES)}
    for span in spans(events):
        begin, end = (max(window[0], min(window[1], (t - origin) * 1e3)) for t in (span.begin, span.end))
        if end > begin:
            lane = span.name.partition(" ")[0]
            axis.barh(lanes[lane], end - begin, left=begin, height=0.72, color=style.PHASE[lane], linewidth=0)
            _label(axis, span, begin, end, lanes[lane], window)
    axis.set_yticks(range(len(_LANES)), ["pre-copy", "diverting", "guest stopped", "draining"])
    axis.set_ylim(len(_LANES) - 0.4, -0.6)
    axis.grid(False, axis="y")


def _label(axis: Any, span: Span, begin: float, end: float, lane: int, window: tuple[float, float]) -> None:
    """The duration, inside the bar where there is room, else beside it."""
    duration = (span.end - span.begin) * 1e3
    words = f"{span.name}: {duration:.1f} ms" if span.name.startswith("pass") else f"{duration:.1f} ms"
    if end - begin > (window[1] - window[0]) * 0.02 * len(words) * 0.6:
        axis.text((begin + end) / 2, lane, words, ha="center", va="center", fontsize=8, color="white")
    elif not span.name.startswith("pass"):
        axis.text(end + (window[1] - window[0]) * 0.006, lane, words, va="center", fontsize=8)


def _marks(axis: Any, events: Sequence[Event], origin: float) -> None:
    stop, resume = first(events, "stop"), first(events, "resume")
    if stop is not None and resume is not None:
        axis.axvspan(
            (stop - origin) * 1e3, (resume - origin) * 1e3, color=style.PHASE["stopped"], alpha=0.1, lw=0
        )
    for name in MARKS:
        at = first(events, name)
        if at is not None:
            axis.axvline((at - origin) * 1e3, color=style.MARK.get(name, "0.4"), lw=0.8, ls="--", zorder=1)


def _out(axis: Any, packets: Mapping[str, Any], origin: float, window: tuple[float, float]) -> None:
    shift = (packets["t0"] - origin) * 1e3
    lost = {seq for a, b in packets["out_missing"] for seq in range(a, b + 1)}
    sent = [(us / 1e3 + shift, seq) for seq, us in enumerate(packets["out_us"])]
    arrived = [p for p in sent if p[1] not in lost]
    gone = [p for p in sent if p[1] in lost]
    base = _scatter(axis, arrived, gone, window, "client → guest\nseq, when sent", style.SENT)
    taken = [
        (us / 1e3 + shift, count - base)
        for us, count in zip(packets.get("acked_us", ()), packets.get("acked_count", ()), strict=True)
    ]
    if taken:
        axis.step(*zip(*taken, strict=True), where="post", color=style.ARRIVED, lw=1.4, zorder=2.5)
        axis.text(
            0.99,
            0.06,
            "dots: sent; line: how many the guest has",
            transform=axis.transAxes,
            ha="right",
            color="0.35",
        )


def _back(axis: Any, packets: Mapping[str, Any], origin: float, window: tuple[float, float]) -> None:
    """A lost packet has no time of its own: it is drawn when the next one that arrived did."""
    shift = (packets["t0"] - origin) * 1e3
    came = [(us / 1e3 + shift, seq) for us, seq in zip(packets["back_us"], packets["back_seq"], strict=True)]
    by_seq = sorted((seq, at) for at, seq in came)
    gone = [
        (_when(by_seq, seq), seq)
        for first_seq, last in packets["back_missing"]
        for seq in range(first_seq, last + 1)
    ]
    _scatter(axis, came, gone, window, "guest → client\nseq, when received")


def _when(by_seq: Sequence[tuple[int, float]], seq: int) -> float:
    from bisect import bisect

    at = min(bisect(by_seq, (seq, 0.0)), len(by_seq) - 1)
    return by_seq[at][1] if by_seq else 0.0


def _scatter(
    axis: Any,
    arrived: Sequence[tuple[float, int]],
    gone: Sequence[tuple[float, int]],
    window: tuple[float, float],
    name: str,
    colour: str = style.ARRIVED,
) -> int:
    """Draws what is in the window; the seq that is drawn at zero."""
    good = [p for p in arrived if window[0] <= p[0] <= window[1]]
    bad = [p for p in gone if window[0] <= p[0] <= window[1]]
    base = min((seq for _, seq in chain(good, bad)), default=0)
    size = 10 if len(good) < 400 else 5 if len(good) < 4000 else 2
    axis.scatter([t for t, _ in good], [s - base for _, s in good], s=size, color=colour, lw=0, zorder=3)
    axis.scatter(
        [t for t, _ in bad], [s - base for _, s in bad], s=size * 1.6, color=style.LOST, lw=0, zorder=4
    )
    axis.set_ylabel(name)
    words = style.LOST if gone else style.ARRIVED
    axis.text(
        0.01, 0.93, f"{len(gone)} lost", transform=axis.transAxes, va="top", color=words, fontweight="bold"
    )
    top = max((s - base for _, s in chain(good, bad)), default=1)
    axis.set_ylim(-0.04 * top, 1.05 * top)
    return base
