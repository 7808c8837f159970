"""Hears a chosen few frames that arrive on a device, without taking them from anybody."""

from __future__ import annotations

import socket
import struct

from dom0.dataplane import packet_filter
from dom0.dataplane.packet_filter import Filter

_ETH_P_ALL = 3
_FRAME_BYTES = 9216
_MOST_FRAMES = 4096


def source_filter(mac: bytes) -> Filter:
    """Frames whose Ethernet source is ``mac``."""
    return _address_filter(6, mac)


def destination_filter(mac: bytes) -> Filter:
    """Frames to ``mac``."""
    return _address_filter(0, mac)


def _address_filter(at: int, mac: bytes) -> Filter:
    """Classic BPF: four bytes from ``at`` on, then two."""
    high, low = struct.unpack("!IH", mac)
    return (
        (0x20, 0, 0, at),
        (0x15, 0, 3, high),
        (0x28, 0, 0, at + 4),
        (0x15, 0, 1, low),
        (0x06, 0, 0, 0x40000),
        (0x06, 0, 0, 0),
    )


def group_filter() -> Filter:
    """Broadcast and multicast: the group bit of the destination address."""
    return ((0x30, 0, 0, 0), (0x45, 0, 1, 1), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0))


def broadcast_filter(ether_type: int) -> Filter:
    """Frames to everybody (the first four bytes decide) of that type."""
    return (
        (0x28, 0, 0, 12),
        (0x15, 0, 3, ether_type),
        (0x20, 0, 0, 0),
        (0x15, 0, 1, 0xFFFFFFFF),
        (0x06, 0, 0, 0x40000),
        (0x06, 0, 0, 0),
    )


class Listener:
    """``device`` None: on all that there are, and will be."""

    def __init__(self, device: str | None, program: Filter) -> None:
        protocol = socket.htons(_ETH_P_ALL) if device is None else 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        packet_filter.attach(self._socket, program)
        if device is not None:
            self._socket.bind((device, _ETH_P_ALL))

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def drain(self, most: int = _MOST_FRAMES) -> list[bytes]:
        """What was heard since the last call, at most so many frames; the others wait, as far as there is room."""
        heard: list[bytes] = []
        while len(heard) < most:
            try:
                heard.append(self._socket.recv(_FRAME_BYTES))
            except BlockingIOError:
                break
            except OSError:  # the device has gone
                break
        return heard

    def close(self) -> None:
        self._socket.close()
