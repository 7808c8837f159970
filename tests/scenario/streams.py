"""Numbered UDP packets between two nodes, one stream each way and address family; loss is counted where they arrive."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count as numbers

from vmnet.lab import Lab
from vmnet.lab.wait import wait_for
from vmnet.probe import meter, mmsg, wire

_TICK_S = 0.002
_BUFFER_BYTES = 32 << 20
_SETTLE_S = 3.0
_PAYLOAD_BYTES = 64
_FREEBIND = 15
_sessions = numbers(1)


@dataclass(frozen=True)
class Way:
    """One stream: from ``source`` in node ``sender`` to ``target`` in node ``receiver``, ``rate`` packets a second."""

    sender: str
    source: str
    receiver: str
    target: str
    rate: int

    def __str__(self) -> str:
        return f"{self.sender}({self.source})->{self.receiver}({self.target})"


@dataclass(frozen=True)
class Result:
    """``refused``: what the sender's own kernel would not send, for want of a route. ``gap_ms``: the longest silence."""

    way: Way
    counts: meter.Counts
    refused: int
    gap_ms: float
    dropped_here: int
    late: list[tuple[int, int]]
    """What came out of order, and the number that had overtaken it."""

    @property
    def clean(self) -> bool:
        found = self.counts
        return (found.lost, found.duplicated, found.reordered, self.refused) == (0, 0, 0, 0)

    def __str__(self) -> str:
        found = self.counts
        return (
            f"{self.way}: {found.sent} sent, {found.lost} lost {found.missing[:4]}, {found.duplicated} twice, "
            f"{found.reordered} out of order {self.late[:4]}, {self.refused} refused, longest gap {self.gap_ms:.1f} ms"
        )


class Stream:
    def __init__(self, lab: Lab, way: Way, stack: ExitStack) -> None:
        self.way = way
        self.session = next(_sessions)
        self.sent = self.refused = 0
        self._in_socket = stack.enter_context(lab.node(way.receiver).call(lambda: _bound(way.target)))
        port = self._in_socket.getsockname()[1]
        out = stack.enter_context(lab.node(way.sender).call(lambda: _bound(way.source)))
        out.connect((way.target, port))
        self._in = mmsg.Receiver(self._in_socket)
        self._out = mmsg.Sender(out, self.session, _PAYLOAD_BYTES)

    def turn(self, due: int) -> None:
        """Send up to packet ``due`` and take what came. What the kernel refuses is not sent again."""
        while self.sent + self.refused < due:
            went = self._out.send(self.sent, due - self.sent - self.refused)
            self.sent += went
            if not went:
                self.refused = due - self.sent
        self._in.read()

    @property
    def whole(self) -> bool:
        self._in.read()
        return len(self._in) >= self.sent

    def result(self) -> Result:
        found = [
            (one[3], at)
            for one, at in zip(wire.iter_data(self._in.records), self._in.times(), strict=True)
            if one[2] == self.session
        ]
        return Result(
            self.way,
            meter.count([seq for seq, _ in found], self.sent),
            self.refused,
            meter.longest_gap([at for _, at in found]).ms,
            mmsg.dropped(self._in_socket),
            overtaken([seq for seq, _ in found]),
        )


def overtaken(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Each number that came after a higher one, with the highest so far."""
    found, highest = [], -1
    for seq in seqs:
        if seq < highest:
            found.append((seq, highest))
        highest = max(highest, seq)
    return found


def _bound(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
    mmsg.big_buffers(made, _BUFFER_BYTES)
    made.bind((address, 0))
    return made


@dataclass
class Traffic:
    """Runs in a thread; ``results`` are there when the block of :func:`flowing` has ended."""

    streams: list[Stream]
    results: list[Result] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        begin = time.monotonic()
        while not self._stop.wait(_TICK_S):
            passed = time.monotonic() - begin
            for one in self.streams:
                one.turn(int(passed * one.way.rate))

    def finish(self, thread: threading.Thread) -> None:
        self._stop.set()
        thread.join()
        deadline = time.monotonic() + _SETTLE_S
        while time.monotonic() < deadline and not all(one.whole for one in self.streams):
            time.sleep(_TICK_S)
        self.results = [one.result() for one in self.streams]

    @property
    def lost(self) -> int:
        return sum(one.counts.lost + one.refused for one in self.results)

    def problems(self) -> list[str]:
        return [str(one) for one in self.results if not one.clean]

    def arriving(self) -> bool:
        return all(one.sent > 0 and len(one._in) > 0 for one in self.streams)


@contextmanager
def flowing(lab: Lab, ways: Sequence[Way]) -> Iterator[Traffic]:
    """All of ``ways`` for as long as the block lasts. LabError if one of them does not arrive at all."""
    with ExitStack() as stack:
        traffic = Traffic([Stream(lab, way, stack) for way in ways])
        thread = threading.Thread(target=traffic.run, name="streams")
        thread.start()
        try:
            wait_for(f"packets to arrive: {', '.join(map(str, ways))}", traffic.arriving, 10)
            yield traffic
        finally:
            traffic.finish(thread)
