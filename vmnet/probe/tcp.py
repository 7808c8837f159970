"""A TCP transfer checked end to end: bytes and CRC-32 on both sides, and the longest time it stood still."""

from __future__ import annotations

import random
import socket
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from vmnet.errors import UnavailableError, WaitTimeoutError
from vmnet.probe import wire
from vmnet.probe.control import resolve

CHUNK = 16384
TICK_S = 0.005
CONNECT_TIMEOUT_S = 5.0
STALL_LIMIT_S = 30.0
_ACKED = struct.Struct("@Q")
_ACKED_AT = 120  # tcpi_bytes_acked in struct tcp_info (linux/tcp.h)


@dataclass(frozen=True, slots=True)
class TcpResult:
    """``ok``: the other side has the same bytes and checksum. Stall: the longest time without an acknowledged or read byte."""

    bytes: int
    ok: bool
    seconds: float
    longest_stall_ms: float

    def to_json(self) -> dict[str, object]:
        return {
            "bytes": self.bytes,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "longest_stall_ms": round(self.longest_stall_ms, 3),
        }


class _Stall:
    """The longest time a growing number did not grow."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._value = 0
        self._since = time.monotonic()

    def see(self, value: int, target: str) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self._since)
        if value > self._value:
            self._value, self._since = value, now
        elif now - self._since > STALL_LIMIT_S:
            raise WaitTimeoutError(f"no byte to or from {target} for {STALL_LIMIT_S:g} s")


def send(
    target: str,
    seconds: float,
    rate_kbit: int = 20_000,
    port: int = wire.TCP_PORT,
    stopped: Callable[[], bool] = lambda: False,
) -> TcpResult:
    """Streams pseudorandom bytes to the responder for ``seconds`` or until ``stopped()``, then compares with what it counted."""
    with _connect(target, port) as sock:
        sock.sendall(wire.tcp_header(wire.TcpMode.SINK))
        begin = time.monotonic()
        stall = _Stall()
        sent, crc = _pump(sock, target, begin + seconds, rate_kbit, stall, stopped)
        sock.shutdown(socket.SHUT_WR)
        answer = _read_all(sock, target, 64, stall)
    return TcpResult(
        sent, wire.decode_tcp_answer(answer) == (sent, crc), time.monotonic() - begin, stall.longest * 1e3
    )


def _pump(
    sock: socket.socket, target: str, end: float, rate_kbit: int, stall: _Stall, stopped: Callable[[], bool]
) -> tuple[int, int]:
    """Sends at the rate without ever blocking; (bytes, crc)."""
    block = random.Random(7).randbytes(CHUNK * 64)
    sock.setblocking(False)
    begin = time.monotonic()
    sent = crc = 0
    while (now := time.monotonic()) < end and not stopped():
        due = min(int((now - begin) * rate_kbit * 125) - sent, CHUNK * 16)
        while due > 0:
            at = sent % len(block)
            try:
                went = sock.send(block[at : at + min(due, CHUNK)])
            except BlockingIOError:
                break
            crc = zlib.crc32(block[at : at + went], crc)
            sent += went
            due -= went
        stall.see(_acked(sock), target)
        time.sleep(TICK_S)
    return sent, crc


def _acked(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + 8)
    return int(_ACKED.unpack_from(info, _ACKED_AT)[0])


def receive(
    target: str,
    seconds: float,
    rate_kbit: int = 20_000,
    port: int = wire.TCP_PORT,
) -> TcpResult:
    """Reads the responder's stream of ``seconds`` and compares with the count and checksum that end it."""
    with _connect(target, port) as sock:
        seed = random.getrandbits(64)
        sock.sendall(wire.tcp_header(wire.TcpMode.SOURCE, rate_kbit, int(seconds * 1000), seed))
        begin = time.monotonic()
        stall = _Stall()
        count, crc, tail = 0, 0, b""
        while part := _read(sock, target, stall, count):
            tail += part
            body, tail = tail[: -wire.TCP_TRAILER.size], tail[-wire.TCP_TRAILER.size :]
            crc = zlib.crc32(body, crc)
            count += len(body)
    return TcpResult(
        count, wire.decode_tcp_trailer(tail) == (count, crc), time.monotonic() - begin, stall.longest * 1e3
    )


def _connect(target: str, port: int) -> socket.socket:
    family, address = resolve(target, port, socket.SOCK_STREAM)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(CONNECT_TIMEOUT_S)
    try:
        sock.connect(address)
    except TimeoutError as error:
        sock.close()
        raise WaitTimeoutError(
            f"no TCP connection to {target} port {port} in {CONNECT_TIMEOUT_S:g} s"
        ) from error
    except OSError as error:
        sock.close()
        raise UnavailableError(f"no TCP connection to {target} port {port}: {error.strerror}") from error
    return sock


def _read(sock: socket.socket, target: str, stall: _Stall, count: int) -> bytes:
    sock.settimeout(STALL_LIMIT_S)
    try:
        part = sock.recv(CHUNK * 16)
    except TimeoutError as error:
        raise WaitTimeoutError(f"no byte from {target} for {STALL_LIMIT_S:g} s") from error
    except OSError as error:
        raise UnavailableError(f"the TCP connection to {target} broke: {error.strerror}") from error
    if part:
        stall.see(count + len(part), target)
    return part


def _read_all(sock: socket.socket, target: str, limit: int, stall: _Stall) -> bytes:
    text = b""
    while len(text) < limit and (part := _read(sock, target, stall, len(text))):
        text += part
    return text
