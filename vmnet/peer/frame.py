"""Frames between daemons: 4 bytes of length (big endian), then that many bytes of JSON, one object."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from vmnet.errors import PeerError
from vmnet.wire import decode_object

VERSION = 1
MAX_FRAME = 4 * 1024 * 1024
MAX_IN_FLIGHT = 64  # requests on one connection
BODY_S = 10.0  # a frame that has begun must be complete after this
HANDSHAKE_S = 15.0
# A peer that vanished (power, cable) is noticed after about IDLE + COUNT x INTERVAL seconds.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))


def encode(message: dict[str, Any]) -> bytes:
    """One frame. Raises PeerError if it is too large or not JSON."""
    try:
        body = json.dumps(message, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise PeerError(f"cannot be sent to a peer: {error}") from None
    if len(body) > MAX_FRAME:
        raise PeerError(f"a message of {len(body)} bytes is too large for a peer", f"at most {MAX_FRAME}")
    return len(body).to_bytes(4, "big") + body


def decode(body: bytes) -> dict[str, Any]:
    """The object in a frame's body. Raises PeerError if it is none."""
    try:
        return decode_object(body)
    except ValueError as error:
        raise PeerError(f"garbled: {error}", "are both hosts' vmnet of one version?") from None


async def read(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next frame, for however long that takes to begin (keepalive ends dead connections).

    Raises PeerError if it is garbled or stalls for BODY_S seconds, EOFError or OSError if the connection ends.
    """
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > MAX_FRAME:
        raise PeerError(f"garbled: a frame of {length} bytes", f"at most {MAX_FRAME}; is it a vmnet daemon?")
    try:
        async with asyncio.timeout(BODY_S):
            return decode(await reader.readexactly(length))
    except TimeoutError:
        raise PeerError(f"garbled: a frame's {length} bytes did not come within {BODY_S:g} s") from None


def tune(writer: asyncio.StreamWriter) -> None:
    """No delay for small frames; notice a dead peer within seconds."""
    sock = writer.get_extra_info("socket")
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 11_000)
