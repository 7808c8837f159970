"""One flow of numbered UDP packets from one namespace through a router to another: ``python -m vmnet.bench.flow``.

One thread sends what is due and takes what came, so its own buffer can not fill while it sends; the kernel stamps arrivals.
Prints JSON lines: ``started``, and at SIGTERM (or the end of ``--seconds``) the ``result``.
"""

from __future__ import annotations

import argparse
import gc
import ipaddress
import json
import os
import secrets
import signal
import socket
import time
from array import array
from pathlib import Path

from vmnet.bench import flow_count
from vmnet.bench.flow_count import FlowResult
from vmnet.bench.saturation import prefer_us
from vmnet.errors import WaitTimeoutError
from vmnet.lab import enter
from vmnet.probe import mmsg

PORT = 9007
_TICK_NS = 500_000
_MOST_LATE_NS = 20_000_000
_MOST_BURST = 500
_MOST_PACKETS = 16 << 20
_BUFFER_BYTES = 128 << 20
_SETTLE_NS, _DRAIN_NS = 500_000_000, 5_000_000_000
_FIRST_S = 5.0


def late_ns(rate_pps: int) -> int:
    """A sender that is held up longer goes on from now, without a burst that a queue of 1000 packets would not take."""
    return min(_MOST_LATE_NS, max(2 * _TICK_NS, _MOST_BURST * 1_000_000_000 // rate_pps))


class Flow:
    """``sender`` and ``receiver`` are namespaces; ``address`` is the receiver's."""

    def __init__(self, sender: Path, receiver: Path, address: str, rate_pps: int, packet_bytes: int) -> None:
        ipv6 = ipaddress.ip_address(address).version == 6
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._to = enter.call(receiver, lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._from = enter.call(sender, lambda: socket.socket(family, socket.SOCK_DGRAM))
        mmsg.big_buffers(self._to, _BUFFER_BYTES)
        mmsg.big_buffers(self._from, _BUFFER_BYTES)
        self._to.bind((address, PORT))
        self._from.connect((address, PORT))
        self.rate_pps = rate_pps
        self._session = secrets.randbits(32)
        self._length = flow_count.payload_bytes(packet_bytes, ipv6)
        self._in = mmsg.Receiver(self._to)
        self._out = mmsg.Sender(self._from, self._session, self._length)
        self._sent_ns = array("q")
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def first(self) -> None:
        """Until a packet has arrived: neighbours are resolved then. These are not counted. Raises WaitTimeoutError."""
        others = mmsg.Sender(self._from, self._session ^ 1, self._length)
        deadline = time.monotonic() + _FIRST_S
        while not len(self._in):
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"no packet of the flow arrived within {_FIRST_S:g} s")
            others.send(0, 1)
            time.sleep(0.02)
            self._in.read()
        self._await_silence()
        self._in = mmsg.Receiver(self._to)

    def run(self, seconds: float) -> None:
        """Sends for ``seconds``, or until ``stop()``."""
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            self._loop(time.monotonic_ns() + int(seconds * 1e9))
        finally:
            gc.enable()
            gc.unfreeze()
            self._end_ns = time.time_ns()

    def _loop(self, end: int) -> None:
        base = wake = now = time.monotonic_ns()
        base_seq, late = 0, late_ns(self.rate_pps)
        while now < end and not self._stopped and len(self._sent_ns) < _MOST_PACKETS:
            if now - wake > late:
                base, base_seq, wake = now, len(self._sent_ns), now
            self._out.send_due(self._sent_ns, base_seq + (now - base) * self.rate_pps // 1_000_000_000 + 1)
            self._in.read()
            wake += max(_TICK_NS, 1_000_000_000 // self.rate_pps)
            time.sleep(max(0, wake - time.monotonic_ns()) / 1e9)
            now = time.monotonic_ns()

    def _await_silence(self) -> None:
        """Until all that was sent is there, or nothing has come for a while."""
        begin = changed = time.monotonic_ns()
        known = -1
        while (now := time.monotonic_ns()) < min(changed + _SETTLE_NS, begin + _DRAIN_NS):
            self._in.read()
            if len(self._in) != known:
                known, changed = len(self._in), now
            time.sleep(0.005)

    def finish(self) -> FlowResult:
        self._await_silence()
        with self._from, self._to:
            seqs, arrivals = flow_count.own(self._in.records, self._in.times(), self._session)
            return flow_count.result(seqs, arrivals, self._sent_ns, self._end_ns, mmsg.dropped(self._to))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vmnet.bench.flow")
    parser.add_argument("--sender", type=Path, required=True)
    parser.add_argument("--receiver", type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    return parser.parse_args()


def main() -> None:
    given = _arguments()
    # a sender that waits for a CPU is a gap that is not the router's; one that changes CPUs overtakes its own packets
    prefer_us()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    flow = Flow(given.sender, given.receiver, given.address, given.rate, given.size)
    flow.first()
    signal.signal(signal.SIGTERM, lambda *_: flow.stop())
    print(json.dumps({"event": "started"}), flush=True)
    flow.run(given.seconds)
    print(json.dumps({"event": "result", **flow.finish().to_json()}), flush=True)


if __name__ == "__main__":
    main()
