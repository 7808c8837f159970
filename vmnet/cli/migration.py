"""Asks the daemon for a migration and shows what it says. No command-line library: a guest waits while we start."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from vmnet.control import ControlClient
from vmnet.errors import ExitCode, VmnetError

DEFAULT_SOCKET = "/run/vmnet/dom0d.sock"
SOCKET_VARIABLE = "VMNET_SOCKET"


def run(
    socket: str, vm: str, destination: str, as_json: bool = False, max_downtime_ms: int | None = None
) -> int:
    """Migrate; the exit code: 0, or NOT_CLEAN. Raises what the daemon answers."""
    with _AbortOnInterrupt(socket, vm):
        stream = ControlClient(socket).stream(
            "migrate", vm=vm, destination=destination, max_downtime_ms=max_downtime_ms
        )
        events = (one.get("event") or one.get("result", {}) for one in stream)
        verdict = _json_lines(events) if as_json else _display(events, vm, destination)
    return int(ExitCode.OK if verdict.get("clean") else ExitCode.NOT_CLEAN)


class _AbortOnInterrupt:
    """Ctrl-C asks the daemon to put everything back; the stream then ends by itself. A second Ctrl-C leaves at once."""

    def __init__(self, socket: str, vm: str) -> None:
        self._socket, self._vm = socket, vm
        self._before = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> None:
        signal.signal(signal.SIGINT, self._interrupted)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, _signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
        try:
            ControlClient(self._socket).request("abort", vm=self._vm)
            _say("aborting: putting everything back")
        except VmnetError as error:
            _say(f"vmnet: {error}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _json_lines(events: Iterator[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for event in events:
        print(json.dumps(event), flush=True)
        result = event
    return _verdict(result)


def _verdict(last: dict[str, Any]) -> dict[str, Any]:
    verdict = last.get("verdict", {})
    return verdict if isinstance(verdict, dict) else {}


def _display(events: Iterator[dict[str, Any]], vm: str, destination: str) -> dict[str, Any]:
    if sys.stderr.isatty():
        from vmnet.cli.live import follow

        return _verdict(follow(events, vm, destination))
    last: dict[str, Any] = {}
    for event in events:
        last = event
        if event.get("event") == "verdict":
            print(*event["lines"], sep="\n", flush=True)
    return _verdict(last)
