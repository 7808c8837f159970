"""``vmnet migrate VM DEST``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from vmnet.cli import common
from vmnet.errors import ExitCode, VmnetError


@click.command()
@click.argument("vm")
@click.argument("destination")
@click.option("--dry-run", is_flag=True, help="Print the plan, every action in words, and change nothing.")
@click.option(
    "--max-downtime", type=click.IntRange(1, 60_000), metavar="MS", help="Stop the guest when this will do."
)
@common.json_option
@common.socket_option
def migrate(
    vm: str, destination: str, dry_run: bool, max_downtime: int | None, as_json: bool, socket: Path
) -> None:
    """Move the running VM to host DESTINATION, live.

    Exit codes: 0 moved and nothing lost; 4 unknown VM or host; 5 a daemon or libvirt is away; 6 refused, nothing touched;
    7 failed, the VM runs on here; 8 moved, but not clean; 130 aborted.
    """
    daemon = common.client(socket)
    if dry_run:
        from vmnet.cli.plan import show_plan

        show_plan(daemon.request("plan", vm=vm, destination=destination), as_json)
        return
    with _abort_on_interrupt(socket, vm):
        stream = daemon.stream("migrate", vm=vm, destination=destination, max_downtime_ms=max_downtime)
        events = (one.get("event") or one.get("result", {}) for one in stream)
        verdict = _json_lines(events) if as_json else _display(events, vm, destination)
    if not verdict.get("clean"):
        sys.exit(ExitCode.NOT_CLEAN)


@contextmanager
def _abort_on_interrupt(socket: Path, vm: str) -> Iterator[None]:
    """Ctrl-C asks the daemon to put everything back; the stream then ends by itself. A second Ctrl-C leaves at once."""
    before = signal.getsignal(signal.SIGINT)

    def interrupted(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        try:
            common.client(socket).request("abort", vm=vm)
            click.echo("aborting: putting everything back", err=True)
        except VmnetError as error:
            click.echo(f"vmnet: {error}", err=True)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _json_lines(events: Iterator[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for event in events:
        common.print_json(event)
        result = event
    return _verdict(result)


def _verdict(last: dict[str, Any]) -> dict[str, Any]:
    verdict = last.get("verdict", {})
    return verdict if isinstance(verdict, dict) else {}


def _display(events: Iterator[dict[str, Any]], vm: str, destination: str) -> dict[str, Any]:
    if sys.stderr.isatty():
        from vmnet.cli.live import follow

        last = follow(events, vm, destination)
    else:
        last = {}
        for event in events:
            last = event
            if event.get("event") == "verdict":
                for line in event["lines"]:
                    click.echo(line)
    return _verdict(last)
