"""Fences come behind all that was sent on an old way, however long a switch has kept it (:mod:`controller_bridge.fence`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Awaitable, Callable

import pytest
from dataplane_kit import Host, ip, isolated
from led_scene import CLIENT, ETHERTYPE, MOVE, VM, Scene, linked, over_the_fabric, raw, until_async
from ovs_kit import Fabric
from test_rerouter_openvswitch import MOVE as TOLD_MOVE
from test_rerouter_openvswitch import Scene as ToldScene
from test_rerouter_openvswitch import over_the_fabric as over_the_told_fabric

from controller_bridge.fence import TOKEN_BYTES, fence, token_of
from controller_bridge.rerouters.base import Fences
from controller_bridge.rerouters.openvswitch import OpenVSwitchRerouter
from dom0.dataplane.sender import Sender
from dom0.old_path import LIMIT_S, OldPath
from vmnet.errors import RefusedError, UnavailableError

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
needs_ovs = pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here")
LATE = [
    (VM + CLIENT + ETHERTYPE.to_bytes(2, "big") + b"late%d" % number).ljust(60, b"\0") for number in range(5)
]


async def fenced(
    fabric: Fabric, old: socket.socket, ask: Callable[[], Awaitable[int]]
) -> tuple[int, list[bytes]]:
    """While s2 stands still five packets get there from s1, and a fence; what the old host hears then, and how many were sent."""
    s1, s2 = fabric.switches["s1"], fabric.switches["s2"]
    before = s1.sent("s2")
    with s2.stopped():
        for frame in LATE:
            await asyncio.to_thread(s1.send, fabric.ports["s1", "s2"], frame)
        asked = asyncio.ensure_future(ask())
        await until_async(lambda: s1.sent("s2") >= before + len(LATE) + 1, "the fence waits at s2")
        assert not asked.done(), "s2 has not confirmed its own"
    count = await asked
    heard: list[bytes] = []

    def all_heard() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(old.recv(2000))
        return sum(token_of(one) is not None for one in heard) >= count

    await until_async(all_heard, f"{count} fences arrive")
    return count, [one for one in heard if one in LATE or token_of(one)]


def behind(heard: list[bytes], token: bytes) -> bool:
    """All that was late came, in order, and a fence behind it."""
    return [one for one in heard if one in LATE] == LATE and heard[-1] == fence(VM, token)


@needs_ovs
@isolated(120)
def test_our_controller_sends_them_behind_what_a_switch_has_kept() -> None:
    async def body(scene: Scene) -> None:
        async with scene.controller() as controller:
            rerouter, token = scene.rerouter(), secrets.token_bytes(TOKEN_BYTES)
            await linked(controller)
            await scene.speak(controller)
            await rerouter.prepare(MOVE)
            with pytest.raises(RefusedError, match="cut_over comes before fence"):
                await rerouter.fence(MOVE, token)
            await rerouter.cut_over(MOVE)
            tables = scene.dump(cookies=True)
            count, heard = await fenced(scene.fabric, scene.wires["a"], lambda: rerouter.fence(MOVE, token))
            assert count == 4, "every switch led elsewhere before"
            assert behind(heard, token)
            assert scene.dump(cookies=True) == tables, "nobody has learned anything of them"
            await rerouter.close()

    over_the_fabric(body)


@needs_ovs
@isolated(120)
def test_switches_told_directly_send_them_too() -> None:
    async def body(scene: ToldScene, rerouter: OpenVSwitchRerouter) -> None:
        token = secrets.token_bytes(TOKEN_BYTES)
        assert isinstance(rerouter, Fences)
        assert await rerouter.fence(TOLD_MOVE, token) == 0, "of a move that it knows nothing of"
        await rerouter.prepare(TOLD_MOVE)
        await rerouter.cut_over(TOLD_MOVE)
        old = raw(scene.hosts["a"])
        count, heard = await fenced(scene.fabric, old, lambda: rerouter.fence(TOLD_MOVE, token))
        assert count == 4 and behind(heard, token)

    over_the_told_fabric(body)


class Fabricated:
    """An old path that ends in the device "tunnel", and a fabric that does as the test says."""

    def __init__(self, *does: Callable[[Fabricated, bytes], int]) -> None:
        ip("link", "add", "tunnel", "type", "veth", "peer", "far")
        for end in ("tunnel", "far"):
            ip("link", "set", end, "up")
        self.counted, self.asked, self._does = 0, 0, does
        self._tunnel = Sender("tunnel")

    def comes(self, frame: bytes) -> None:
        self.counted += 1
        self._tunnel.send(bytes(10) + frame)

    async def ask(self, token: bytes) -> int:
        does = self._does[min(self.asked, len(self._does) - 1)]
        self.asked += 1
        return does(self, token)

    def until_empty(self, fences: bool = True, tunnel: str = "tunnel") -> bool:
        async def body() -> bool:
            path = OldPath(lambda: self.counted, [tunnel], self.ask if fences else None)
            try:
                return await path.until_empty()
            finally:
                await path.close()

        return asyncio.run(body())


def sends(fabric: Fabricated, token: bytes) -> int:
    fabric.comes(fence(VM, token))
    return 1


def sends_what_it_has_kept(fabric: Fabricated, token: bytes) -> int:
    fabric.comes(LATE[0])
    return sends(fabric, token)


def loses(_fabric: Fabricated, _token: bytes) -> int:
    return 1


def has_none(_fabric: Fabricated, _token: bytes) -> int:
    return 0


def fails(_fabric: Fabricated, _token: bytes) -> int:
    raise UnavailableError("the controller has gone")


def forges(fabric: Fabricated, _token: bytes) -> int:
    fabric.comes(fence(VM, bytes(TOKEN_BYTES)))
    return 1


@isolated()
@pytest.mark.parametrize(
    ("does", "asked"),
    [
        ((sends,), 1),
        ((sends_what_it_has_kept, sends), 2),
        ((sends_what_it_has_kept, sends_what_it_has_kept, sends), 3),
        ((loses, sends), 2),
        ((forges, sends), 2),
        ((has_none,), 1),
        ((fails,), 1),
    ],
)
def test_it_is_empty_when_a_fence_has_come_and_nothing_else(
    does: tuple[Callable[[Fabricated, bytes], int], ...], asked: int
) -> None:
    with Host():
        fabric = Fabricated(*does)
        assert fabric.until_empty()
        assert fabric.asked == asked


@isolated()
@pytest.mark.parametrize("does", [loses, sends_what_it_has_kept])
def test_it_is_not_waited_for_for_ever(does: Callable[[Fabricated, bytes], int]) -> None:
    with Host():
        fabric = Fabricated(does)
        began = time.monotonic()
        assert not fabric.until_empty()
        assert time.monotonic() - began >= LIMIT_S
        assert fabric.asked > 1


@isolated()
def test_without_fences_silence_has_to_do() -> None:
    with Host():
        fabric = Fabricated()
        assert fabric.until_empty(fences=False)
        assert fabric.until_empty(tunnel="nowhere")
        assert fabric.asked == 0
