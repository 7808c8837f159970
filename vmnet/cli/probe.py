"""``vmnet probe``: packet streams to a responder and back; what was lost and for how long it was silent."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from vmnet.probe.result import ProbeResult
    from vmnet.probe.stream import Meter, Progress

MODES = ("udp", "tcp-send", "tcp-receive", "ping")


class Emitter:
    """JSON lines: to standard output with ``--json``, to the events file if there is one."""

    def __init__(self, as_json: bool, events: TextIO | None) -> None:
        self.as_json = as_json
        self._events = events

    def __call__(self, event: str, **fields: object) -> None:
        line = json.dumps({"event": event, "t": time.time(), **fields}) + "\n"
        for stream in (sys.stdout if self.as_json else None, self._events):
            if stream:
                stream.write(line)
                stream.flush()

    def timeline(self, result: ProbeResult) -> None:
        if self._events:
            self._events.write(json.dumps(result.timeline.to_json()) + "\n")


@click.command()
@click.argument("target")
@click.option("--mode", type=click.Choice(MODES), default="udp", show_default=True, help="What to send.")
@click.option(
    "--rate", type=click.IntRange(1), default=1000, show_default=True, help="Packets/s each way (udp)."
)
@click.option(
    "--size", type=int, default=64, show_default=True, help="Bytes of an Ethernet frame without FCS (udp)."
)
@click.option(
    "--duration", type=float, default=10.0, show_default=True, help="Seconds; 0: until interrupted."
)
@click.option("--kbit", type=click.IntRange(1), default=20_000, show_default=True, help="Rate (tcp).")
@click.option("--interval", type=float, default=0.01, show_default=True, help="Seconds between pings (ping).")
@click.option("--dirty", metavar="MIB:PAGES", help="Meanwhile the guest dirties MIB at PAGES a second.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output.")
@click.option(
    "--events", type=click.File("w"), help="Write events and every packet's time to FILE, for plots."
)
def probe(
    target: str, mode: str, events: TextIO | None, as_json: bool, dirty: str | None, **how: Any
) -> None:
    """Measure the path to a guest that runs vmnet's responder.

    Interrupting ends the stream early; the result is still given.
    """
    emit = Emitter(as_json, events)
    with _dirtying(target, dirty):
        if mode == "udp":
            _udp(target, how, emit)
        else:
            _other(target, mode, how, emit)


@contextmanager
def _dirtying(target: str, dirty: str | None) -> Iterator[None]:
    if not dirty:
        yield
        return
    from vmnet.probe.control import Control

    mib, _, pages = dirty.partition(":")
    if not (mib.isdigit() and pages.isdigit()):
        raise click.BadParameter(f"{dirty} is not MIB:PAGES", param_hint="--dirty")
    with Control(target) as control:
        control.dirty(int(mib), int(pages))
        try:
            yield
        finally:
            control.dirty(0, 0)


@contextmanager
def _until_signal(stop: Callable[[], None]) -> Iterator[None]:
    """An interrupt ends the measurement, not the program."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop()) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _udp(target: str, how: dict[str, Any], emit: Emitter) -> None:
    from vmnet.probe.stream import Meter, Settings

    live = not emit.as_json and sys.stdout.isatty()
    if live:
        import rich.live  # noqa: F401  (now: importing it takes longer than a packet)
    meter = Meter(Settings(target, how["rate"], how["size"]))
    with _until_signal(meter.stop):
        meter.start()
        emit("started")
        _run(meter, how["duration"] or None, live)
        emit("stopped")
        result = meter.finish()
    emit.timeline(result)
    emit("result", **result.to_json())
    if not emit.as_json:
        _print(result)


def _run(meter: Meter, seconds: float | None, live: bool) -> None:
    if not live:
        meter.run(seconds)
        return
    from rich.live import Live

    with Live(auto_refresh=False, transient=True) as display:

        def show(now: Progress) -> None:
            display.update(
                f"{now.seconds:6.1f} s   to guest {now.sent} sent, {now.lost_out} unacknowledged   "
                f"from guest {now.received} received, {now.lost_in} missing",
                refresh=True,
            )

        meter.run(seconds, show)


def _print(result: ProbeResult) -> None:
    from vmnet.report import table

    columns = ("direction", "sent", "received", "lost", "duplicated", "reordered", "longest gap ms")
    rows = [
        (name, c.sent, c.received, c.lost, c.duplicated, c.reordered, gap.ms)
        for name, c, gap in (
            ("to guest", result.out, result.gap_out),
            ("from guest", result.back, result.gap_back),
        )
    ]
    table.show(columns, rows)
    found = result.to_json()
    click.echo(f"round trip p50 {found['latency_p50_ms']} ms, p99 {found['latency_p99_ms']} ms")
    if result.guest_resent or result.guest_forgot:
        click.echo(
            f"the guest's memory went back: {result.guest_resent} sent again, {result.guest_forgot} forgotten",
            err=True,
        )
    if result.dropped_here:
        click.echo(f"{result.dropped_here} packets were dropped by this process's own socket", err=True)
    if result.unresolved:
        click.echo(
            f"{result.unresolved} of the lost packets were sent while this host had no MAC address for the target "
            "(its ARP or neighbour discovery had given up)",
            err=True,
        )
    if result.guest_dropped:
        click.echo(f"{result.guest_dropped} packets were dropped by the guest's own socket", err=True)


def _other(target: str, mode: str, how: dict[str, Any], emit: Emitter) -> None:
    from vmnet.probe import ping, tcp

    ended: list[bool] = []
    seconds = how["duration"] or 3600.0
    emit("started")
    with _until_signal(lambda: ended.append(True)):
        found: tcp.TcpResult | ping.PingResult
        if mode == "ping":
            found = ping.run(target, seconds, how["interval"], stopped=lambda: bool(ended))
        elif mode == "tcp-send":
            found = tcp.send(target, seconds, how["kbit"], stopped=lambda: bool(ended))
        else:
            found = tcp.receive(target, seconds, how["kbit"])
    emit("result", mode=mode, **found.to_json())
    if not emit.as_json:
        click.echo("  ".join(f"{name} {value}" for name, value in found.to_json().items()))
