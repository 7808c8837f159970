"""``python -m vmnet.game serve`` and ``python -m vmnet.game play ADDRESS``."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import click

from vmnet.game.wire import UDP_PORT

_PORT = click.option("--port", type=click.IntRange(1, 65535), default=UDP_PORT, show_default=True)


@click.group()
def game() -> None:
    """A small game over UDP: a server that says where everybody is, 20 times a second, and players that measure it."""


@game.command()
@click.option("--address", default="::", show_default=True, help="Where to listen.")
@_PORT
def serve(address: str, port: int) -> None:
    """Run the server; says "game: ready" when it listens."""
    from vmnet.game import sockets

    _run(sockets.serve(address, port, lambda: click.echo("game: ready")))


@game.command()
@click.argument("address")
@_PORT
@click.option("--duration", type=float, help="Seconds; default: until interrupted.")
@click.option(
    "--limit",
    type=float,
    default=0.5,
    show_default=True,
    help="Seconds without a state that count as a disconnect.",
)
@click.option(
    "--rate", type=click.FloatRange(1, 1000), default=20.0, show_default=True, help="Inputs a second."
)
@click.option("--each", is_flag=True, help="Report every round trip (rtts_ms), second by second.")
def play(address: str, port: int, duration: float | None, limit: float, rate: float, each: bool) -> None:
    """Play against a server; JSON lines tell of each second, each disconnect, and all of it."""
    from vmnet.game import sockets

    _run(sockets.play(address, port, duration_s=duration, limit_s=limit, rate_hz=rate, each=each))


def _run(what: Coroutine[Any, Any, Any]) -> None:
    async def until_told() -> None:
        task = asyncio.ensure_future(what)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        asyncio.run(until_told())
    except OSError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(5)


if __name__ == "__main__":
    game(prog_name="python -m vmnet.game")
