"""The namespace's kernel, told in bulk: many messages a send, an acknowledgement for the last, errors for any."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dom0.dataplane.netns import call as call_in
from dom0.fib.message import ACK, ERROR, HEADER

_RCVBUFFORCE, _SNDBUFFORCE = 33, 32
_RECEIVE_BYTES, _SEND_BYTES = 16 << 20, 1 << 20
_CHUNK_BYTES, _CHUNK_MESSAGES = 32 << 10, 500
_ANSWER_S = 5.0
_CODE = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Failure:
    """``request``: the whole message that the kernel would not have."""

    errno: int
    request: bytes

    def __str__(self) -> str:
        kind = HEADER.unpack_from(self.request)[1] if len(self.request) >= 16 else 0
        return f"message of type {kind}: {os.strerror(self.errno)}"


def open_socket(netns: str | None, protocol: int = socket.NETLINK_ROUTE) -> socket.socket:
    """A netlink socket in ``netns`` (None: this thread's) with large buffers. OSError if there is none."""

    def made() -> socket.socket:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)

    found = made() if netns is None else call_in(netns, made)
    found.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _RECEIVE_BYTES)
    found.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, _SEND_BYTES)
    found.settimeout(_ANSWER_S)
    found.bind((0, 0))
    return found


class Kernel:
    """Blocks as long as the kernel takes: about 2 us a route. ``netns``, ``protocol``: as :func:`open_socket` has them."""

    def __init__(self, netns: str | None, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = open_socket(netns, protocol)
        self._sequence = 0

    def send(self, messages: Sequence[bytes]) -> list[Failure]:
        """Messages without sequence numbers, in order; empty ones are skipped. OSError only if there is no kernel to talk to."""
        failures: list[Failure] = []
        for chunk in _chunks(messages):
            failures += self._send(chunk)
        return failures

    def _send(self, chunk: list[bytes]) -> list[Failure]:
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        last = bytearray(chunk[-1])
        length, kind, flags, _sequence, _port = HEADER.unpack_from(last)
        HEADER.pack_into(last, 0, length, kind, flags | ACK, self._sequence, 0)
        chunk[-1] = bytes(last)
        self._socket.send(b"".join(chunk))
        failures: list[Failure] = []
        while not self._answered(self._socket.recv(1 << 20), failures):
            pass
        return failures

    def _answered(self, data: bytes, failures: list[Failure]) -> bool:
        """True when the last of a chunk was answered."""
        offset = 0
        done = False
        while offset + 20 <= len(data):
            length, kind, _flags, sequence, _port = HEADER.unpack_from(data, offset)
            if kind == ERROR:
                (code,) = _CODE.unpack_from(data, offset + 16)
                if code:
                    failures.append(Failure(-code, data[offset + 20 : offset + length]))
                done = done or sequence == self._sequence
            offset += (length + 3) & ~3
        return done

    def close(self) -> None:
        self._socket.close()


def _chunks(messages: Sequence[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for one in messages:
        if not one:
            continue
        if len(chunk) == _CHUNK_MESSAGES or size + len(one) > _CHUNK_BYTES:
            if chunk:
                yield chunk
            chunk, size = [], 0
        chunk.append(one)
        size += len(one)
    if chunk:
        yield chunk
