"""A frame that a switch sends behind all that it has sent on a way: where it has come, nothing of that is under way any more. Pure.

It is for a station that drops it if it should ever get it. Nobody can forge one without having seen its token, which is used once.
"""

from __future__ import annotations

from typing import Final

from controller_bridge.local_frame import TYPE, local_frame

SOURCE: Final = bytes.fromhex("02766d677702")
"""The MAC address that they come from: locally administered, and no station's."""
TOKEN_BYTES: Final = 16
_HEAD: Final = SOURCE + TYPE


def fence(mac: bytes, token: bytes) -> bytes:
    """For the way to ``mac`` (6 bytes). ValueError if ``token`` has not 16 bytes."""
    if len(mac) != 6 or len(token) != TOKEN_BYTES:
        raise ValueError(f"a fence has an address of 6 and a token of {TOKEN_BYTES} bytes")
    return local_frame(mac, SOURCE, token)


def token_of(frame: bytes) -> bytes | None:
    """None if ``frame`` is no fence."""
    if frame[6:14] != _HEAD or len(frame) < 14 + TOKEN_BYTES:
        return None
    return frame[14 : 14 + TOKEN_BYTES]
