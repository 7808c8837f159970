"""Whoever connects to the OpenFlow port and does harm: memory is bounded, and connections end. Real sockets, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from controller_bridge import controller as controllers
from controller_bridge.address import Address
from controller_bridge.channel import Channel
from controller_bridge.controller import Controller
from controller_bridge.core.core import Core
from controller_bridge.openflow.wire import V13, Type, message
from vmnet.bench.emulated import Emulated

ECHO = message(V13, Type.ECHO_REQUEST, 7, bytes(65_000))
HELLO = message(V13, Type.HELLO, 1)


async def connected(close_s: float = 5.0) -> tuple[Channel, socket.socket, asyncio.Event]:
    """A channel, and a peer that reads nothing."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    for one in (ours, theirs):
        one.setblocking(False)
    lost = asyncio.Event()
    _transport, channel = await loop.create_connection(
        lambda: Channel(lambda _said: None, lost.set, close_s=close_s), sock=ours
    )
    return channel, theirs, lost


async def flood(theirs: socket.socket, lost: asyncio.Event, most_bytes: int) -> int:
    """Bytes of echo requests that the other side took."""
    loop, sent = asyncio.get_running_loop(), 0
    with contextlib.suppress(OSError):
        await loop.sock_sendall(theirs, HELLO)
        while sent < most_bytes and not lost.is_set():
            async with asyncio.timeout(5):
                await loop.sock_sendall(theirs, ECHO)
            sent += len(ECHO)
    return sent


def test_who_asks_and_reads_no_reply_is_given_up() -> None:
    async def body() -> None:
        channel, theirs, lost = await connected()
        assert await flood(theirs, lost, 64 << 20) < 8 << 20
        async with asyncio.timeout(5):
            await lost.wait()
        theirs.close()
        channel.abort("again")

    asyncio.run(body())


def test_who_reads_the_replies_may_ask_for_ever() -> None:
    async def body() -> None:
        _channel, theirs, lost = await connected()
        loop, got = asyncio.get_running_loop(), 0
        await loop.sock_sendall(theirs, HELLO)
        for _ in range(100):
            await loop.sock_sendall(theirs, ECHO)
            while got < len(ECHO):
                got += len(await loop.sock_recv(theirs, 1 << 20))
            got -= len(ECHO)
        assert not lost.is_set()
        theirs.close()

    asyncio.run(body())


def test_closing_waits_for_nobody_for_ever() -> None:
    async def body() -> None:
        channel, theirs, lost = await connected(close_s=0.2)
        await asyncio.get_running_loop().sock_sendall(theirs, HELLO)
        await channel.greeted()
        for _ in range(64):
            channel.send(ECHO)
        channel.close()
        channel.close()
        async with asyncio.timeout(5):
            await lost.wait()
        channel.abort("again")
        theirs.close()

    asyncio.run(body())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def talk(switch: Emulated, ended: asyncio.Event) -> None:
    """The switch answers whatever it is asked, until its connection ends."""
    loop = asyncio.get_running_loop()
    switch.socket.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            data = await loop.sock_recv(switch.socket, 1 << 18)
            if not data:
                break
            await loop.sock_sendall(switch.socket, switch.replies_to(data))
    ended.set()


@pytest.mark.parametrize("answers", [True, False], ids=["alive", "silent"])
def test_a_second_connection_of_a_switch(answers: bool) -> None:
    """Refused while the first one answers; else it takes its place."""

    async def body(port: int) -> None:
        controller = Controller(Core(bytes(32)), {1: "s1"})
        await controller.start([Address("tcp", "127.0.0.1", port)])
        first, second = asyncio.Event(), asyncio.Event()
        talking = [asyncio.create_task(talk(Emulated(1, ("127.0.0.1", port)), first))]
        async with asyncio.timeout(10):
            while "s1" not in controller.switches:
                await asyncio.sleep(0.01)
            connected = controller.switches["s1"]
            if not answers:
                talking[0].cancel()
            talking.append(asyncio.create_task(talk(Emulated(1, ("127.0.0.1", port)), second)))
            if answers:
                await second.wait()
            while not answers and controller.switches["s1"] is connected:
                await asyncio.sleep(0.01)
        assert (controller.switches["s1"] is connected, first.is_set()) == (answers, False)
        for task in talking:
            task.cancel()
        await controller.close()

    asyncio.run(body(free_port()))


def test_the_oldest_of_too_many_silent_ones_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controllers, "MOST_GREETING", 4)

    async def body(port: int) -> None:
        controller = Controller(Core(bytes(32)))
        await controller.start([Address("tcp", "127.0.0.1", port)])
        peers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        for reader, _writer in peers[:2]:
            async with asyncio.timeout(5):
                while await reader.read(1 << 16):
                    pass
        for reader, _writer in peers[2:]:
            assert await reader.read(1 << 16)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await reader.read(8)
        for _reader, writer in peers:
            writer.close()
        await controller.close()

    asyncio.run(body(free_port()))
