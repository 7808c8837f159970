"""How many packets a second get through a router when one CPU sends as fast as it can.

Within one kernel a sender's system call carries its packets through veths, bridges and the forwarding namespace itself, so nothing
queues: what one CPU sends and forwards a second is the router's rate with that CPU, and its inverse the cost of a packet (with the
sender's and the receiver's part, the same for every path). A VM forwards elsewhere, so there packets are lost; what arrives counts.
``python -m vmnet.bench.saturation --help``: the same between two namespaces; prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vmnet.bench.flow_count import payload_bytes
from vmnet.errors import WaitTimeoutError
from vmnet.lab import enter
from vmnet.probe import mmsg

PORT = 9008
_FIRST_S, _SETTLE_S = 5.0, 0.2
_SMALL_BUFFER_BYTES = 1 << 16
_NICE = -10
T = TypeVar("T")
Inside = Callable[[Callable[[], socket.socket]], socket.socket]
"""Opens a socket inside a namespace."""


@dataclass(frozen=True, slots=True)
class Blast:
    """Packets that were sent and that arrived; how long sending took, and how much of that our thread had a CPU."""

    sent: int
    arrived: int
    seconds: float
    cpu_s: float = 0.0


class Blaster:
    """A sender and a receiver whose small buffer is full at once: the kernel counts what arrives, and nobody has to read it."""

    def __init__(self, sender: Inside, receiver: Inside, address: str, packet_bytes: int) -> None:
        ipv6 = ipaddress.ip_address(address).version == 6
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._to = receiver(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._from = sender(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._to.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
        self._to.bind((address, PORT))
        self._from.connect((address, PORT))
        self._out = mmsg.Sender(self._from, 1, payload_bytes(packet_bytes, ipv6))
        self._in = mmsg.Receiver(self._to)

    def __enter__(self) -> Blaster:
        return self

    def __exit__(self, *_: object) -> None:
        self._from.close()
        self._to.close()

    def _arrived(self) -> int:
        self._in.read()
        return mmsg.dropped(self._to) + len(self._in)

    def first(self) -> None:
        """Until a packet has arrived: neighbours are resolved then. Raises WaitTimeoutError."""
        deadline = time.monotonic() + _FIRST_S
        while not self._arrived():
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"no packet arrived within {_FIRST_S:g} s")
            self._out.send(0, 1)
            time.sleep(0.02)
        self._settled()

    def _settled(self) -> int:
        """How many have arrived, once no more do."""
        known, since = self._arrived(), time.monotonic()
        while time.monotonic() < since + _SETTLE_S:
            time.sleep(0.01)
            if (now := self._arrived()) != known:
                known, since = now, time.monotonic()
        return known

    def run(self, seconds: float) -> Blast:
        before, sent = self._settled(), 0
        begin, cpu_s = time.monotonic(), time.thread_time()
        while (now := time.monotonic()) < begin + seconds:
            sent += self._out.repeat()
        cpu_s = time.thread_time() - cpu_s
        return Blast(sent, self._settled() - before, now - begin, cpu_s)


def prefer_us() -> None:
    """Ahead of what else runs on the machine, where that is allowed."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)


@contextmanager
def preferred() -> Iterator[None]:
    """``prefer_us`` for as long as the block lasts; children of that time keep it."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    prefer_us()
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def main() -> None:
    parser = argparse.ArgumentParser(prog="vmnet.bench.saturation")
    for name in ("--sender", "--receiver"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    prefer_us()
    sender, receiver = (partial(enter.call, path) for path in (given.sender, given.receiver))
    with Blaster(sender, receiver, given.address, given.size) as blaster:
        blaster.first()
        print(json.dumps(asdict(blaster.run(given.seconds))), flush=True)


if __name__ == "__main__":
    main()
