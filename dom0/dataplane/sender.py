"""Sends frames out of a device, offload header included; marked frames pass the gate there."""

from __future__ import annotations

import socket

_SOL_PACKET, _PACKET_VNET_HDR, _SO_MARK = 263, 15, 36
_SEND_BUFFER_BYTES = 8 << 20
_SO_SNDBUFFORCE = 32


class Sender:
    def __init__(self, device: str, mark: int = 0) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER_BYTES)
        if mark:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
        self._socket.bind((device, 0))

    def send(self, frame: bytes) -> None:
        """``frame`` starts with its virtio_net_hdr; it is in the device's hands when this returns."""
        self._socket.send(frame)

    def close(self) -> None:
        self._socket.close()
