"""A frame as the recorder keeps it. Pure, so that what judges such frames needs no socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class RecordedFrame:
    """``data`` starts with the virtio_net_hdr; ``time_ns`` is when it entered the tap, CLOCK_REALTIME."""

    time_ns: int
    data: bytes


NOT_COPIED: Final = RecordedFrame(0, b"")
"""One that the recorder had no room for."""
