"""Questions to a responder and their answers: each is repeated until answered, within a deadline."""

from __future__ import annotations

import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from vmnet.errors import NotFoundError, RefusedError, UnavailableError, WaitTimeoutError
from vmnet.probe import wire
from vmnet.probe.meter import Ranges

RETRY_S = 0.1


def resolve(
    target: str, port: int, kind: socket.SocketKind
) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """The first address of ``target`` as the system orders them."""
    try:
        family, _, _, _, address = socket.getaddrinfo(target, port, type=kind)[0]
    except socket.gaierror as error:
        raise NotFoundError(f"no address for {target}: {error.strerror}") from error
    return family, address


def connect(target: str, port: int) -> socket.socket:
    """A connected UDP socket: it hears nobody but the target."""
    family, address = resolve(target, port, socket.SOCK_DGRAM)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.connect(address)
    except OSError as error:
        sock.close()
        raise UnavailableError(f"no route to {target}: {error.strerror}") from error
    return sock


@dataclass
class Control:
    """A responder's control side. Every method raises WaitTimeoutError when no answer comes in ``timeout_s``."""

    target: str
    port: int = wire.UDP_PORT
    timeout_s: float = 5.0
    session: int = field(default_factory=lambda: secrets.randbits(64))

    def __post_init__(self) -> None:
        self._sock = connect(self.target, self.port)

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def ask(
        self, question: wire.Type, answer: wire.Type, *words: int, timeout_s: float | None = None
    ) -> wire.Control:
        limit = self.timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit
        message = wire.control(question, self.session, *words)
        self._forget()
        while (left := deadline - time.monotonic()) > 0:
            reply = self._once(message, answer, min(left, RETRY_S))
            if reply is not None:
                return reply
        raise WaitTimeoutError(
            f"no {answer.name} from the responder at {self.target} port {self.port} within {limit:g} s",
            "is the guest up and reachable from here?",
        )

    def _once(self, message: bytes, answer: wire.Type, wait_s: float) -> wire.Control | None:
        """One try: sends, then reads until the answer or until the wait is over."""
        deadline = time.monotonic() + wait_s
        self._sock.settimeout(wait_s)
        with suppress(OSError):  # an earlier ICMP error, no route for now: the next try tells
            self._sock.send(message)
        while (left := deadline - time.monotonic()) > 0:
            self._sock.settimeout(left)
            try:
                reply = wire.decode_control(self._sock.recv(2048))
            except TimeoutError:
                return None
            except OSError:
                time.sleep(max(0.0, deadline - time.monotonic()))  # refused: nobody listens yet
                return None
            if reply and reply.type is answer and reply.session == self.session:
                return reply
        return None

    def hello(self, timeout_s: float | None = None) -> int:
        """Waits until the responder answers; its uptime in ms."""
        answer = wire.words(self.ask(wire.Type.HELLO, wire.Type.HELLO_ACK, timeout_s=timeout_s), 1)
        return answer[0] if answer else 0

    def stop(self) -> wire.Report:
        return self._report(wire.Type.STOP)

    def report(self) -> wire.Report:
        return self._report(wire.Type.REPORT_REQ)

    def _report(self, question: wire.Type) -> wire.Report:
        report = wire.decode_report(self.ask(question, wire.Type.REPORT))
        if report is None:
            raise UnavailableError(f"the responder at {self.target} sent a report that is cut short")
        return report

    def missing(self, below: int) -> Ranges:
        """All ranges of the client's seqs under ``below`` that the guest never got."""
        ranges: list[tuple[int, int]] = []
        first = 0
        while first < below:
            part = wire.decode_ranges(self.ask(wire.Type.RANGES_REQ, wire.Type.RANGES, first, below))
            if part is None or not first < part[0]:
                raise UnavailableError(f"the responder at {self.target} sent ranges that make no sense")
            first = part[0]
            ranges += part[1]
        return tuple(ranges)

    def _forget(self) -> None:
        """Late answers to repeated questions are not answers to the next one."""
        self._sock.setblocking(False)
        with suppress(OSError):
            while True:
                self._sock.recv(2048)

    def close_session(self) -> None:
        self.ask(wire.Type.CLOSE, wire.Type.CLOSE_ACK)

    def dirty(self, mib: int, pages_per_second: int) -> None:
        """Makes the guest dirty that much memory at that rate; 0 of either ends it."""
        reply = self.ask(wire.Type.DIRTY, wire.Type.DIRTY_ACK, mib, pages_per_second)
        status = wire.words(reply, 3)
        if status is None or status[0] != 0:
            raise RefusedError(
                f"the guest at {self.target} will not dirty {mib} MiB at {pages_per_second} pages/s"
            )
