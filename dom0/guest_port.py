"""Where a guest's interface is on this host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuestPort:
    """``mac``: the guest's there (6 bytes). ``bridge``: empty if it is not known."""

    tap: str
    mac: bytes
    bridge: str
