"""The game's two ends on real sockets. Everything that decides is in world.py and player.py."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from vmnet.game.player import Player, Report
from vmnet.game.wire import UDP_PORT
from vmnet.game.world import TICKS_PER_S, World

Received = Callable[[bytes, Any], None]


class _Datagrams(asyncio.DatagramProtocol):
    """An error is what a packet meets on its way, such as no route while a client roams: the next one may fare better."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data, addr)

    def error_received(self, exc: Exception) -> None:
        pass


async def _open(received: Received, **where: Any) -> asyncio.DatagramTransport:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(received), **where
    )
    return transport


async def _every(period_s: float, do: Callable[[float], None], until_s: float | None = None) -> None:
    """At fixed times. Whoever falls behind, because the machine stood still, goes on from now: no burst."""
    due_s = time.monotonic()
    while until_s is None or due_s < until_s:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        now_s = time.monotonic()
        do(now_s)
        due_s = max(due_s + period_s, now_s)


async def serve(address: str = "::", port: int = UDP_PORT, ready: Callable[[], None] = lambda: None) -> None:
    """Until cancelled. Raises OSError when the port cannot be had."""
    world = World()

    def received(message: bytes, peer: Any) -> None:
        for answer, to in world.received(message, peer, time.monotonic()):
            transport.sendto(answer, to)

    def tick(now_s: float) -> None:
        for state, to in world.tick(now_s):
            transport.sendto(state, to)

    transport = await _open(received, local_addr=(address, port))
    try:
        ready()
        await _every(1 / TICKS_PER_S, tick)
    finally:
        transport.close()


def as_line(report: Report) -> None:
    """On standard output, with the time of day so that several players' reports can be laid side by side."""
    sys.stdout.write(json.dumps({"t": round(time.time(), 4), **report}) + "\n")
    sys.stdout.flush()


async def play(
    address: str,
    port: int = UDP_PORT,
    *,
    duration_s: float | None = None,
    limit_s: float = 0.5,
    rate_hz: float = TICKS_PER_S,
    each: bool = False,
    tell: Callable[[Report], None] = as_line,
) -> Report:
    """Play, and tell what happens; the summary at the end, also when cancelled. Raises OSError when there is no way at the start."""
    player = Player(random.SystemRandom().getrandbits(64), time.monotonic(), limit_s, each)

    def received(message: bytes, peer: Any) -> None:
        for report in player.received(message, time.monotonic()):
            tell(report)

    def step(now_s: float) -> None:
        transport.sendto(player.input(now_s))
        for report in player.check(now_s):
            tell(report)

    transport = await _open(received, remote_addr=(address, port))
    try:
        until_s = None if duration_s is None else time.monotonic() + duration_s
        await _every(1 / rate_hz, step, until_s)
    finally:
        transport.sendto(player.leave())
        transport.close()
        summary = player.summary(time.monotonic())
        tell(summary)
    return summary
