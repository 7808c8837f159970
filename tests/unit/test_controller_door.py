"""Who may ask the controller, and where: its sockets, without a switch."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller_bridge.address import Address
from controller_bridge.api.client import ControllerClient, way
from controller_bridge.api.desk import Desk
from controller_bridge.api.door import Door
from controller_bridge.controller import Controller
from controller_bridge.core.core import Core
from controller_bridge.core.places import Places
from controller_bridge.fabric import End
from vmnet.errors import NotFoundError, RefusedError, UnavailableError

HOSTS = {"a": End("s1", "1"), "b": End("s1", "2")}
ORDER = {"id": "m", "source": "a", "destination": "b", "macs": ["52:54:00:00:00:01"]}


@asynccontextmanager
async def listening(at: Address) -> AsyncIterator[Door]:
    door = Door(Desk(Controller(Core(b"k" * 32, places=Places(HOSTS)), {1: "s1"})), HOSTS)
    await door.open([at])
    try:
        yield door
    finally:
        await door.close()


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 30))  # type: ignore[arg-type]


def test_root_asks_at_a_socket_of_its_own(tmp_path: Path) -> None:
    at = tmp_path / "run" / "api.sock"

    async def body() -> None:
        async with listening(Address("unix", str(at))):
            assert at.stat().st_mode & 0o777 == 0o600
            client = ControllerClient(way(f"unix:{at}"))
            found = await client.ask("status", {}, 5)
            assert found["switches"] == {"s1": {"connected": False}}
            assert (found["hosts"], found["stations"], found["next"]) == ({"a": None, "b": None}, [], "")
            with pytest.raises(NotFoundError, match="cannot do that; it can prepare, cut_over"):
                await client.ask("format", {}, 5)
            with pytest.raises(RefusedError, match="'macs' is empty"):
                await client.ask("release", {}, 5)
            with pytest.raises(UnavailableError, match=r"cannot listen at unix:.*Address already in use"):
                async with listening(Address("unix", str(at))):
                    pass
            assert await client.ask("status", {}, 5), "who came second has taken it away"
            await client.close()
        assert not at.exists()

    run(body)


def test_a_socket_that_a_dead_one_has_left_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    at = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(at))

    async def body() -> None:
        async with listening(Address("unix", str(at))):
            assert await ControllerClient(way(f"unix:{at}")).ask("status", {}, 5)
        at.write_text("mine")
        with pytest.raises(UnavailableError, match="cannot listen at"):
            async with listening(Address("unix", str(at))):
                pass
        assert at.read_text() == "mine"

    run(body)


ASK = """
import asyncio, os, sys
from controller_bridge.api.client import ControllerClient, way
os.setuid(65534)  # not before: this folder may be root's alone
try:
    asyncio.run(ControllerClient(way("unix:" + sys.argv[1])).ask("status", {}, 10))
    print("let in")
except Exception as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nobody_else_does_even_if_the_sockets_mode_lets_him() -> None:
    async def body() -> None:
        at = Path(f"/tmp/vmnet-test-{os.getpid()}-{random.randrange(1 << 30)}.sock")
        async with listening(Address("unix", str(at))):
            for mode, says in (
                (0o600, "Permission denied"),
                (0o666, "user 65534 may not ask the controller"),
            ):
                at.chmod(mode)
                done = await asyncio.to_thread(
                    subprocess.run,
                    [sys.executable, "-c", ASK, at],
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert says in done.stdout, (done.stdout, done.stderr)

    run(body)


def test_over_plain_tcp_who_asks_is_believed_if_he_is_a_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def body() -> None:
        async with listening(Address("tcp", "127.0.0.1", port)):
            a = ControllerClient(way(f"tcp:127.0.0.1:{port}", us="a"))
            assert await a.ask("status", {}, 5)
            with pytest.raises(RefusedError, match="'id' is not"):
                await a.ask("prepare", {}, 5)
            for name in ("c", "root"):
                other = ControllerClient(way(f"tcp:127.0.0.1:{port}", us=name))
                with pytest.raises(UnavailableError, match="is no host of this fabric; add it to"):
                    await other.ask("status", {}, 5)
            await a.close()

    run(body)


def test_a_step_waits_for_switches_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vmnet.errors import WaitTimeoutError

    monkeypatch.setattr("controller_bridge.api.desk.SETTLE_S", 0.05)

    async def body() -> None:
        at = tmp_path / "api.sock"
        async with listening(Address("unix", str(at))):
            client = ControllerClient(way(f"unix:{at}"))
            with pytest.raises(
                WaitTimeoutError, match=r"no switch's table and links were known within 0\.05 s"
            ):
                await client.ask("prepare", ORDER, 5)
            await client.close()

    run(body)
