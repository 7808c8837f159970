"""Asks the daemon for a migration and shows what it says. No command-line library: a guest waits while we start."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vmnet.control import ControlClient
from vmnet.errors import ExitCode, VmnetError


def run(
    path: str,
    vm: str,
    destination: str,
    as_json: bool = False,
    asked: int | None = None,
    **options: object,
) -> int:
    """Migrate; the exit code: 0, or NOT_CLEAN. Raises what the daemon answers.

    ``asked``: the descriptor of a connection on which the request has been sent; else it is sent now, with ``options``.
    """
    client = ControlClient(path)
    with _abort_on_interrupt(client, vm):
        if asked is None:
            stream = client.stream("migrate", vm=vm, destination=destination, **options)
        else:
            stream = client.answers(socket.socket(fileno=asked), "migrate")
        events = (one.get("event") or one.get("result", {}) for one in stream)
        last = _json_lines(events) if as_json else _display(events, vm, destination)
    verdict = last.get("verdict")
    clean = isinstance(verdict, dict) and verdict.get("clean")
    return int(ExitCode.OK if clean else ExitCode.NOT_CLEAN)


@contextmanager
def _abort_on_interrupt(client: ControlClient, vm: str) -> Iterator[None]:
    """Ctrl-C asks the daemon to put everything back; the stream then ends by itself. A second Ctrl-C leaves at once."""
    before = signal.getsignal(signal.SIGINT)

    def interrupted(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        try:
            client.request("abort", vm=vm)
            _say("aborting: putting everything back")
        except VmnetError as error:
            _say(f"vmnet: {error}")

    signal.signal(signal.SIGINT, interrupted)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _json_lines(events: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The last of ``events``, when all are printed."""
    last: dict[str, Any] = {}
    for last in events:
        print(json.dumps(last), flush=True)
    return last


def _display(events: Iterator[dict[str, Any]], vm: str, destination: str) -> dict[str, Any]:
    """The last of ``events``, when they have been shown to a person."""
    if sys.stderr.isatty():
        from vmnet.cli.live import follow

        return follow(events, vm, destination)
    last: dict[str, Any] = {}
    for last in events:
        if last.get("event") == "verdict":
            print(*last["lines"], sep="\n", flush=True)
    return last
