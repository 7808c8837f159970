"""A frame as the recorder keeps it. Pure, so that what judges such frames needs no socket."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecordedFrame:
    """``data`` starts with the virtio_net_hdr; ``time_ns`` is when it entered the tap, CLOCK_REALTIME."""

    time_ns: int
    data: bytes
