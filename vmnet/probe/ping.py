"""A ping meter: ICMP echo at a fixed interval; what never came back, what came twice, the longest silence.

Any machine answers it, so it needs no responder. Uses the kernel's ping socket where allowed, else a raw one.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from vmnet.errors import RefusedError, UnavailableError
from vmnet.internet_checksum import checksum
from vmnet.probe import meter
from vmnet.probe.control import resolve

_HEAD = struct.Struct("!BBHHH")
_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
DRAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class PingResult:
    sent: int
    lost: int
    duplicated: int
    reordered: int
    longest_gap_ms: float

    def to_json(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}


def echo_request(family: socket.AddressFamily, ident: int, seq: int) -> bytes:
    """The full sequence number is the payload, so it may exceed 16 bits. (ICMPv6's checksum is the kernel's.)"""
    payload = struct.pack("!I", seq)
    head = _HEAD.pack(_REQUEST[family], 0, 0, ident, seq & 0xFFFF)
    value = checksum(head + payload) if family == socket.AF_INET else 0
    return _HEAD.pack(_REQUEST[family], 0, value, ident, seq & 0xFFFF) + payload


def decode_reply(family: socket.AddressFamily, message: bytes, ident: int | None) -> int | None:
    """The sequence number of an echo reply of ours; ``ident`` None: any (the kernel has filtered)."""
    if len(message) < _HEAD.size + 4:
        return None
    kind, _, _, theirs, _ = _HEAD.unpack_from(message)
    if kind != _REPLY[family] or (ident is not None and theirs != ident):
        return None
    return int(struct.unpack_from("!I", message, _HEAD.size)[0])


class Pinger:
    """One socket to one target."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.family, address = resolve(target, 0, socket.SOCK_DGRAM)
        self._protocol = socket.IPPROTO_ICMP if self.family == socket.AF_INET else socket.IPPROTO_ICMPV6
        self._raw = False
        self._sock = self._open(target)
        self._sock.connect(address)
        self._sock.setblocking(False)
        self.ident = os.getpid() & 0xFFFF
        self.seqs: list[int] = []
        self.times: list[int] = []
        self.sent = 0

    def _open(self, target: str) -> socket.socket:
        try:
            return socket.socket(self.family, socket.SOCK_DGRAM, self._protocol)
        except PermissionError:
            self._raw = True
        try:
            return socket.socket(self.family, socket.SOCK_RAW, self._protocol)
        except PermissionError as error:
            raise RefusedError(
                f"no permission to ping {target}", "run as root, or set ping_group_range"
            ) from error

    def ping(self) -> None:
        """Sends one. A route that goes away later is what is being measured; the first must be there."""
        try:
            self._sock.send(echo_request(self.family, self.ident, self.sent))
        except OSError as error:
            if self.sent == 0:
                raise UnavailableError(f"cannot ping {self.target}: {error.strerror}") from error
        self.sent += 1

    def collect(self, wait_s: float) -> None:
        """Reads replies for ``wait_s``."""
        deadline = time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._sock], [], [], left)[0]:
                self._take()

    def _take(self) -> None:
        try:
            message = self._sock.recv(2048)
        except OSError:
            return
        if self._raw and self.family == socket.AF_INET:
            message = message[(message[0] & 15) * 4 :]
        seq = decode_reply(self.family, message, self.ident if self._raw else None)
        if seq is not None:
            self.seqs.append(seq)
            self.times.append(time.time_ns())

    def close(self) -> None:
        self._sock.close()


def run(
    target: str,
    seconds: float,
    interval_s: float = 0.01,
    stopped: Callable[[], bool] = lambda: False,
) -> PingResult:
    """Pings every ``interval_s`` for ``seconds`` or until ``stopped()``; then waits at most 1 s for what is on its way."""
    pinger = Pinger(target)
    try:
        begin = time.monotonic()
        while time.monotonic() < begin + seconds and not stopped():
            pinger.ping()
            pinger.collect(begin + pinger.sent * interval_s - time.monotonic())
        end_ns = time.time_ns()
        deadline = time.monotonic() + DRAIN_S
        while len(set(pinger.seqs)) < pinger.sent and time.monotonic() < deadline:
            pinger.collect(0.02)
    finally:
        pinger.close()
    counts = meter.count(pinger.seqs, pinger.sent)
    gap = meter.longest_gap(meter.first_arrivals(pinger.seqs, pinger.times), end_ns)
    return PingResult(counts.sent, counts.lost, counts.duplicated, counts.reordered, gap.ms)
