"""As :mod:`dom0.dataplane.stranded`, for a tap of several queues (multi-queue virtio). Pure.

Each queue is a ring of its own, read by a thread of its own, and the kernel counts what was read from all of them together. So
the unread frames need not be the newest of the copy: a queue whose thread waits for its turn, or for room in the guest, keeps
frames that are older than some of another queue's that the guest has got. vhost stops the queues one after the other, and QEMU
may drop and keep a frame of each. All frames since the tap was last seen empty are in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from dom0.dataplane.frames import NOT_COPIED, RecordedFrame
from dom0.dataplane.stranded import GUARD_NS, READ_AHEAD, Stranded, in_doubt_since

MOST_IN_DOUBT: Final = 16_384
"""Frames beside the unread ones: so many come twice at most."""


def select_of_queues(
    newest: Iterable[RecordedFrame],
    unread: int,
    queues: int,
    stop_ns: int,
    empty_ns: int | None = None,
    guard_ns: int = GUARD_NS,
    whole: bool = True,
) -> Stranded:
    """Arguments as those of :func:`dom0.dataplane.stranded.select`; ``unread``: of all ``queues``.

    ``whole``: ``newest`` goes back to the first frame that has ever come, or to where the tap was last seen empty.
    """
    unread = max(0, unread)
    frames = list(islice(newest, unread + MOST_IN_DOUBT))
    settled = _first_settled(frames, unread, in_doubt_since(stop_ns, empty_ns, guard_ns))
    chosen = frames[:settled]
    if unread:  # what waits may have waited for one that QEMU has in its hands
        chosen += frames[settled : settled + READ_AHEAD * queues]
    copied = [one for one in chosen if one is not NOT_COPIED]
    later = sum(1 for one in copied if one.time_ns > stop_ns)
    maybe_taken = max(0, len(copied) - later - max(0, unread - later))
    unsure = settled == len(frames) and (not whole or len(frames) == unread + MOST_IN_DOUBT)
    uncopied = min(len(chosen) - len(copied), unread + READ_AHEAD * queues)
    missing = max(uncopied, unread if unsure else unread - len(copied), 0)
    return Stranded(tuple(one.data for one in reversed(copied)), maybe_taken, missing)


def _first_settled(frames: list[RecordedFrame], unread: int, in_doubt_ns: int) -> int:
    """The place of the newest frame that is known to have been delivered, as all older ones are."""
    for place in range(unread, len(frames)):
        if frames[place] is not NOT_COPIED and frames[place].time_ns < in_doubt_ns:
            return place
    return len(frames)
