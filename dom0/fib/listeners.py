"""Listening inside a namespace, on one device only; the options of what is accepted there."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from dom0.dataplane.netns import call as call_in

_TCP_USER_TIMEOUT, _SO_RCVBUFFORCE = 18, 33
RECEIVE_BYTES = 16 << 20
"""How far a session may be behind: a quarter of a million routes. FRR pauses for a second when its own buffer is full
(zebra/dplane_fpm_nl.c, fpm_rib_send); a table that fits in here, or is eaten meanwhile, does not wait for that."""
_USER_TIMEOUT_MS = 5000


def index_of(netns: str, device: str) -> int:
    """OSError if there is no such device in ``netns``."""
    return call_in(netns, lambda: socket.if_nametoindex(device))


def listen(netns: str, address: str, device: str, port: int) -> socket.socket:
    """OSError if the address is not there."""
    return call_in(netns, lambda: _listen(address, device, port))


def _listen(address: str, device: str, port: int) -> socket.socket:
    six = ip_address(address).version == 6
    listener = socket.socket(
        socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    )
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        # before listen: the window's scale is agreed upon with the first packet
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
        listener.bind((address, port, 0, socket.if_nametoindex(device)) if six else (address, port))
        listener.listen(8)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def keep_alive(connection: socket.socket) -> None:
    """A dead link is noticed within 5 s; while it lives there is a sign of it every second."""
    connection.setblocking(False)
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
        (socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, _USER_TIMEOUT_MS),
    ):
        connection.setsockopt(level, option, value)
