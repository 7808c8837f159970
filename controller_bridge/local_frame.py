"""Frames of the kind that IEEE 802 leaves for local experiments: stations drop them. Ours say something on the way. Pure."""

from __future__ import annotations

from typing import Final

ETHER_TYPE: Final = 0x88B5
TYPE: Final = ETHER_TYPE.to_bytes(2, "big")
_MINIMUM_BYTES: Final = 60


def local_frame(to: bytes, source: bytes, body: bytes) -> bytes:
    """From one MAC address (6 bytes) to another, as long as the smallest Ethernet frame or longer."""
    return (to + source + TYPE + body).ljust(_MINIMUM_BYTES, b"\0")
