"""Which frames did the guest never take? Pure: counters, a copy of what entered the tap, and the time the guest stopped.

A tap's ring is first in, first out, so what is unread is the newest ``unread`` frames of the copy. Beyond them, QEMU may have read
up to two more that the stopped guest never saw: one dropped while it stopped its devices and one it keeps for a guest that will not
run here again (QEMU ``net/net.c``, ``net_vm_change_state_handler``). With vhost the kernel's thread reads the tap while the guest
runs; what it has not delivered goes back into the ring, and QEMU, which polls the tap again (``vhost_net_stop``), reads the oldest.
So a frame is in doubt if it came when the guest was stopping, or after the tap was last seen empty before that: a host on which a
reader waits for its turn may read it late. QEMU says that the guest has stopped when its devices have: on slow machines vhost had
stopped up to 12 ms before that, and QEMU had read and dropped a frame meanwhile (1 of 38 moves lost it). And if what is unread had
waited for long by then: the guest's own ring was full, and QEMU had one in its hands that it dropped (so in 5 of 7; in the others
QEMU itself had not run). Better twice than never. They are counted as possible duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from dom0.dataplane.frames import NOT_COPIED, RecordedFrame

READ_AHEAD: Final = 2
"""Frames QEMU may have read and not delivered."""
GUARD_NS: Final = 20_000_000
"""A frame that came this long before the stop may have been read while the guest stopped; longer on a slow host (``guard_ns``)."""

_WAITS_NS: Final = 5_000_000
"""A frame that is unread for longer than this when the guest stops had to wait for room in the guest's own ring."""


@dataclass(frozen=True)
class Stranded:
    """``frames`` in the order they arrived, offload headers included; ``possible_duplicates`` of them may have been delivered.

    ``missing`` more are unread, or may be, and no copy of them is left.
    """

    frames: tuple[bytes, ...]
    possible_duplicates: int
    missing: int = 0


def in_doubt_since(stop_ns: int, empty_ns: int | None, guard_ns: int) -> int:
    """What came before this was read while the guest ran (arguments of :func:`select`)."""
    stops_ns = stop_ns - guard_ns
    return stops_ns if empty_ns is None else min(stops_ns, empty_ns)


def select(
    newest: Iterable[RecordedFrame],
    unread: int,
    stop_ns: int | None,
    empty_ns: int | None = None,
    guard_ns: int = GUARD_NS,
) -> Stranded:
    """``newest``: recorded frames, newest first; ``unread``: frames in the tap's ring; ``stop_ns``: CLOCK_REALTIME of the stop.

    Frames of ``newest`` that are :data:`NOT_COPIED` stand for themselves: what is unread and no copy is left of is missing.

    ``empty_ns``: by the same clock, what came before was read while the guest ran (:mod:`dom0.dataplane.emptiness`); None: not known.
    ``guard_ns``: how long before ``stop_ns`` the guest may have begun to stop.

    ``stop_ns`` None: the guest is known to have taken everything before it stopped (the tap was empty and closed before).
    """
    source = iter(newest)
    left = list(islice(source, max(0, unread)))
    doubtful: list[RecordedFrame] = []
    if stop_ns is not None:
        stuck = bool(left) and left[-1].time_ns < stop_ns - _WAITS_NS
        in_doubt_ns = in_doubt_since(stop_ns, empty_ns, guard_ns)
        ahead = islice(source, READ_AHEAD)
        doubtful = [one for one in ahead if stuck or one.time_ns >= in_doubt_ns]
    ordered = [one.data for one in reversed(left + doubtful) if one is not NOT_COPIED]
    maybe_taken = sum(
        1 for one in doubtful if stop_ns is not None and one is not NOT_COPIED and one.time_ns <= stop_ns
    )
    missing = max(0, unread) + len(doubtful) - len(ordered)
    return Stranded(tuple(ordered), maybe_taken, missing)
