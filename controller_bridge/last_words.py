"""The frame that follows the last one a guest sent from its old host: where it has come, the guest's own are not behind it. Pure.

It goes to everybody, as if from the guest, by the guest's own port: through every queue that its packets wait in. A rehearsal shows
beforehand that the fabric brings such frames to the new host at all. Nobody forges either who does not know the migration's marker.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Final

ETHER_TYPE: Final = 0x88B5
"""For local experiments (IEEE 802): stations drop it."""
_BROADCAST: Final = b"\xff" * 6
_TOKEN_BYTES: Final = 16
_MINIMUM_FRAME_BYTES: Final = 60


class Words(Enum):
    REHEARSAL = b"rehearsal"
    LAST = b"last"


def frame(mac: bytes, marker: bytes, words: Words) -> bytes:
    """From ``mac`` (6 bytes); ``marker`` is the migration's secret."""
    token = hashlib.sha256(marker + words.value + mac).digest()[:_TOKEN_BYTES]
    return (_BROADCAST + mac + ETHER_TYPE.to_bytes(2, "big") + token).ljust(_MINIMUM_FRAME_BYTES, b"\0")


def are(frame: bytes) -> bool:
    """Whether a frame is of this kind; whose, and whether it is true, only the migration's other host can tell."""
    return frame[:6] == _BROADCAST and frame[12:14] == ETHER_TYPE.to_bytes(2, "big")
