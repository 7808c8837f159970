"""Where a guest's interface is on this host, and a way to ask the guest something there."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from dom0.dataplane import netdev


@dataclass(frozen=True, slots=True)
class GuestPort:
    """``mac``: the guest's there (6 bytes). ``bridge``: empty if it is not known."""

    tap: str
    mac: bytes
    bridge: str

    @property
    def asker(self) -> bytes | None:
        """The MAC address for the questions' source: the bridge's own, so that answers come to this host. None if there is none."""
        return netdev.mac_of(self.bridge)

    def ask(self, frames: Iterable[bytes]) -> None:
        """On the guest's tap: nobody else gets ``frames``. OSError if the tap is gone, or full."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as tap:
            tap.bind((self.tap, 0))
            tap.setblocking(False)
            for frame in frames:
                tap.send(frame)
