"""The receiving half of ``vmnet bench fib``, a process of its own so that its memory and its turns are its own. Prints JSON lines.

    python -m vmnet.bench.fib_receiver count|kernel NETNS ADDRESS DEVICE ROUTES [COPY]

``count``: reads what FPM sends and throws it away. ``kernel``: has it installed, clones it into the namespace COPY, and sweeps it.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dom0.fib import dump, listeners
from dom0.fib.fib import Fib
from dom0.fib.message import GETROUTE, INET
from dom0.fib.route import PROTOCOL_AT
from dom0.fib.sessions import Sessions
from dom0.fib.settings import FibSettings

_PORT = 2620
_LIMIT_S = 120.0
_QUIET_S = 0.5
_HEARTBEAT_S = 0.001
_STATIC_SETTINGS = FibSettings(addresses_s=0)


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def memory_mib(field: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process."""
    found = re.search(rf"^{field}:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def count(netns: str, address: str, device: str) -> None:
    """From the first byte to the last before half a second of silence."""
    with listeners.listen(netns, address, device, _PORT) as listener:
        listener.settimeout(_LIMIT_S)
        say("ready")
        connection, _ = listener.accept()
    first = last = 0.0
    size = 0
    connection.settimeout(_LIMIT_S)
    with connection:
        while data := _received(connection):
            last = time.monotonic()
            first = first or last
            size += len(data)
            connection.settimeout(_QUIET_S)
    say("count", seconds=last - first, bytes=size)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except TimeoutError:
        return b""


class Heartbeat:
    """How late the loop is at most: ``longest_ms``."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._due = 0.0
        self.beat()

    def beat(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._due:
            self.longest_ms = max(self.longest_ms, (now - self._due) * 1e3)
        self._due = now + _HEARTBEAT_S
        loop.call_later(_HEARTBEAT_S, self.beat)


async def load(fib: Fib, netns: str, address: str, device: str, routes: int) -> None:
    changed = [0.0]
    loop = asyncio.get_running_loop()

    def on_change(_bytes: bytes) -> None:
        changed[0] = loop.time()

    def nothing(_what: object) -> None:
        pass

    sessions = Sessions(
        *(fib, netns, address, device, _STATIC_SETTINGS),
        on_change=on_change,
        on_link=nothing,
        on_addresses=nothing,
        on_synced=lambda: None,
    )
    before = memory_mib("VmRSS")
    await sessions.start()
    say("ready")
    beat = Heartbeat()
    deadline = loop.time() + _LIMIT_S
    while fib.counts().installed < routes or loop.time() - changed[0] < _QUIET_S:
        if loop.time() > deadline:
            raise TimeoutError(f"{fib.counts().installed} of {routes} routes within {_LIMIT_S:g} s")
        await asyncio.sleep(0.02)
    assert sessions.first_byte_at is not None
    await sessions.close()
    say(
        "kernel",
        seconds=changed[0] - sessions.first_byte_at,
        held=held(netns),
        bytes=sessions.bytes_read,
        longest_turn_ms=beat.longest_ms,
        rss_before_mib=before,
        rss_mib=memory_mib("VmHWM"),
    )


def held(netns: str) -> int:
    """Routes of ours that the kernel really has."""
    return sum(one[PROTOCOL_AT] >= 224 for piece in dump.pieces(netns, GETROUTE, INET) for one in piece)


def timed(function: Callable[[], Iterator[None]]) -> tuple[float, float]:
    """Seconds in all, milliseconds of the longest step (``function`` makes an iterator)."""
    began = last = time.monotonic()
    longest = 0.0
    for _ in function():
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return time.monotonic() - began, longest * 1e3


def clone(fib: Fib, copy: str) -> None:
    there = Fib(copy, "copy")

    def steps() -> Iterator[None]:
        for chunk in fib.snapshot():
            there.install(chunk)
            yield

    seconds, longest = timed(steps)
    say("clone", seconds=seconds, longest_turn_ms=longest, held=held(copy))
    there.close()


def sweep(fib: Fib, netns: str) -> None:
    """A new generation that confirms nothing: all of it goes."""
    fib.begin()
    seconds, longest = timed(fib.sweep)
    say("sweep", seconds=seconds, longest_turn_ms=longest, held=held(netns))


def main(mode: str, netns: str, address: str, device: str, routes: str, copy: str = "") -> None:
    if mode == "count":
        count(netns, address, device)
        return
    fib = Fib(netns, "router")
    asyncio.run(load(fib, netns, address, device, int(routes)))
    if copy:
        clone(fib, copy)
    sweep(fib, netns)


if __name__ == "__main__":
    main(*sys.argv[1:])
