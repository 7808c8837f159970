"""The frame that follows the last one a guest sent from its old host: where it has come, the guest's own are not behind it. Pure.

It goes to everybody, as if from the guest, by the guest's own port: through every queue that its packets wait in. A rehearsal shows
beforehand that the fabric brings such frames to the new host at all. Nobody forges either who does not know the migration's marker.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Final

from controller_bridge.local_frame import TYPE, local_frame

_BROADCAST: Final = b"\xff" * 6
_TOKEN_BYTES: Final = 16


class Words(Enum):
    REHEARSAL = b"rehearsal"
    LAST = b"last"


def frame(mac: bytes, marker: bytes, words: Words) -> bytes:
    """From ``mac`` (6 bytes); ``marker`` is the migration's secret."""
    token = hashlib.sha256(marker + words.value + mac).digest()[:_TOKEN_BYTES]
    return local_frame(_BROADCAST, mac, token)


def are(frame: bytes) -> bool:
    """Whether a frame is of this kind; whose, and whether it is true, only the migration's other host can tell."""
    return frame[:6] == _BROADCAST and frame[12:14] == TYPE
