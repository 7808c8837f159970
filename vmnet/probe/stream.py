"""The downtime meter: one stream of packets to a responder and one back, and what became of them.

The loop wakes once a millisecond, sends what is due in one call and takes what came in another; the kernel stamps arrivals, so
how late the loop is does not matter. Decoding waits until the streams have ended.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from vmnet.errors import RefusedError, UnavailableError, WaitTimeoutError
from vmnet.probe import meter, mmsg, wire
from vmnet.probe.control import Control, connect
from vmnet.probe.neighbour_watch import NeighbourWatch, sent_within
from vmnet.probe.result import ProbeResult, Timeline

TICK_NS = 1_000_000
LATE_NS = 20_000_000  # a loop that was held up longer goes on from now, without a burst
START_TIMEOUT_S = 5.0
SETTLE_S = 0.5
DRAIN_S = 5.0
PROGRESS_S = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """While it runs; ``lost_*`` counts what is still on its way, too."""

    seconds: float
    sent: int
    received: int
    lost_in: int
    lost_out: int


@dataclass(frozen=True, slots=True)
class Settings:
    target: str
    rate_pps: int = 1000
    size_bytes: int = 64
    port: int = wire.UDP_PORT
    limit_s: float = 600.0

    def __post_init__(self) -> None:
        if not 1 <= self.rate_pps <= wire.MAX_RATE or not wire.MIN_SIZE <= self.size_bytes <= wire.MAX_SIZE:
            raise RefusedError(
                f"{self.rate_pps} packets/s of {self.size_bytes} bytes is out of bounds",
                f"rate 1-{wire.MAX_RATE}, size {wire.MIN_SIZE}-{wire.MAX_SIZE}",
            )

    @property
    def seconds(self) -> float:
        """The longest run there are sequence numbers for."""
        return min(self.limit_s, wire.MAX_DURATION_MS / 1000, (wire.MAX_SEQ - 1) / self.rate_pps)


class Meter:
    """``start()``, ``run()`` as long as needed (``stop()`` ends it from a signal handler), then ``finish()``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._control = Control(settings.target, settings.port)
        self._session = self._control.session
        self._sock = connect(settings.target, settings.port)
        mmsg.big_buffers(self._sock, 64 << 20)
        self._in = mmsg.Receiver(self._sock)
        ipv6 = ":" in self._sock.getpeername()[0]
        length = wire.payload_bytes(settings.size_bytes, ipv6)
        self._out = mmsg.Sender(self._sock, self._session, length)
        self._neighbour = NeighbourWatch(self._sock.getpeername()[0])
        self._sent_ns = array("q")
        self._end_ns = 0
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def start(self) -> None:
        """Waits until the responder is there and its stream runs."""
        self._control.hello(START_TIMEOUT_S)
        s = self.settings
        message = wire.control(wire.Type.START, self._session, s.rate_pps, s.size_bytes, 0)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            self._sock.send(message)
            retry = time.monotonic() + 0.1
            while time.monotonic() < retry:
                self._in.read()
                if len(self._in):
                    self._check_started()
                    return
                time.sleep(0.001)
        raise WaitTimeoutError(f"no packet of the stream from {s.target} within {START_TIMEOUT_S:g} s")

    def _check_started(self) -> None:
        first = wire.decode_control(bytes(self._in.records[: wire.HEAD.size + 8]))
        status = wire.words(first, 1) if first and first.type is wire.Type.START_ACK else None
        if status and status[0]:
            raise UnavailableError(
                f"the responder at {self.settings.target} takes no further stream (status {status[0]})",
                "others are measuring, or the rate is out of its bounds",
            )

    def run(self, seconds: float | None = None, progress: Callable[[Progress], None] | None = None) -> None:
        """Streams both ways for ``seconds``, or until ``stop()`` or the end of the sequence numbers."""
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            self._loop(min(seconds or self.settings.seconds, self.settings.seconds), progress)
        finally:
            gc.enable()
            gc.unfreeze()
            self._end_ns = time.time_ns()

    def _loop(self, seconds: float, progress: Callable[[Progress], None] | None) -> None:
        rate = self.settings.rate_pps
        tick = max(TICK_NS, 1_000_000_000 // rate)
        begin = base = now = time.monotonic_ns()
        end = begin + int(seconds * 1e9)
        wake, base_seq = begin, 0
        shown = begin
        while now < end and not self._stopped:
            if now - wake > LATE_NS:
                base, base_seq, wake = now, len(self._sent_ns), now
            self._out.send_due(self._sent_ns, base_seq + (now - base) * rate // 1_000_000_000 + 1)
            self._in.read()
            if progress and now - shown > PROGRESS_S * 1e9:
                shown = now
                progress(self._progress((now - begin) / 1e9))
            wake += tick
            time.sleep(max(0, wake - time.monotonic_ns()) / 1e9)
            now = time.monotonic_ns()

    def _progress(self, seconds: float) -> Progress:
        """From the last packet alone: its own number and what it acknowledges."""
        sent, got = len(self._sent_ns), len(self._in)
        *_, seq, _, received, _ = wire.DATA.unpack(self._in.last())
        return Progress(seconds, sent, got, max(0, seq + 1 - got), max(0, sent - received))

    def finish(self) -> ProbeResult:
        """Stops the guest's stream, waits until nothing more arrives, asks what the guest counted.

        WaitTimeoutError says since when nothing has come, if the guest does not answer.
        """
        with self._control, self._sock, closing(self._neighbour):
            try:
                report = self._control.stop()
            except WaitTimeoutError as error:
                raise WaitTimeoutError(f"{error.message}; {self._last_heard()}", error.hint) from None
            report = self._drain(report)
            missing = self._control.missing(len(self._sent_ns))
            self._control.close_session()
            drops = mmsg.dropped(self._sock)
        return self._result(report, missing, drops)

    def _last_heard(self) -> str:
        self._in.read()
        times = self._in.times()
        if not times:
            return "no packet of its stream has come"
        return f"the last packet of its stream came {time.time() - times[-1] / 1e9:.1f} s ago"

    def _drain(self, report: wire.Report) -> wire.Report:
        """Until all is there, or nothing has changed for SETTLE_S, at most DRAIN_S."""
        deadline = time.monotonic() + DRAIN_S
        settled = time.monotonic() + SETTLE_S
        known = (-1, -1)
        while time.monotonic() < min(deadline, settled):
            self._in.read()
            state = (len(self._in), report.received)
            if state != known:
                known, settled = state, time.monotonic() + SETTLE_S
            if report.received == len(self._sent_ns) and len(self._in) >= report.sent + 1:
                break
            time.sleep(0.02)
            report = self._control.report()
        self._in.read()
        return report

    def _result(self, report: wire.Report, missing: meter.Ranges, drops: int) -> ProbeResult:
        arrivals = meter.decode(self._in.records, self._in.times(), self._session, self._sent_ns)
        back = meter.count(arrivals.seqs, report.sent)
        again = meter.resent(self._in.records, self._session) if back.duplicated else 0
        back = replace(back, duplicated=back.duplicated - again)
        forgot = meter.forgotten(zip(arrivals.highest, arrivals.received, strict=True), missing)
        firsts = meter.first_arrivals(arrivals.seqs, arrivals.times)
        timeline = Timeline(
            self._sent_ns,
            missing,
            arrivals.seqs,
            arrivals.times,
            back.missing,
            arrivals.progress,
            arrivals.received,
        )
        return ProbeResult(
            settings=(self.settings.target, self.settings.rate_pps, self.settings.size_bytes),
            out=meter.outgoing(report, len(self._sent_ns), missing, forgot),
            back=back,
            gap_out=meter.longest_gap(arrivals.progress, self._end_ns),
            gap_back=meter.longest_gap(firsts, self._end_ns),
            latency_p50_ns=meter.percentile(arrivals.latencies, 50),
            latency_p99_ns=meter.percentile(arrivals.latencies, 99),
            seconds=(self._end_ns - self._sent_ns[0]) / 1e9 if self._sent_ns else 0.0,
            dropped_here=drops,
            guest_resent=again,
            guest_forgot=forgot,
            guest_dropped=report.dropped,
            unresolved=sent_within(missing, self._sent_ns, self._neighbour.periods(self._end_ns)),
            timeline=timeline,
        )
