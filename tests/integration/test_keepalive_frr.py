"""A router that stands still for a second, as its neighbour sees it: real FRR on both sides, BFD at 3 x 100 ms over IPv4 and IPv6.

The router stands in for a VM: stopped, with its packets waiting for it in its sockets. Unlike a VM's its clock goes on, so it has to
be patient itself: its neighbour's multiplier is 30. What is judged is how patient the neighbour is, which is three intervals.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dataplane_kit import Host, isolated, until
from frr_kit import FRR, Scene, scene, standing_still

from dom0.router.keepalive_handover import export_book, import_book
from dom0.router.keepalive_port import Impersonator, KeepaliveWatch

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not (FRR / "bfdd").exists(), reason="no FRR here"),
]
STILL_S = 1.0


def peer(address: str, own: str, multiplier: int, extra: str = "") -> str:
    return (
        f" peer {address} local-address {own}\n  detect-multiplier {multiplier}\n"
        f"  receive-interval 100\n  transmit-interval 100\n{extra}  no shutdown\n"
    )


@contextmanager
def bfd_scene(neighbour_extra: str = "") -> Iterator[Scene]:
    router = peer("192.0.2.2", "192.0.2.1", 3) + peer("2001:db8::2", "2001:db8::1", 3)
    neighbour = peer("192.0.2.1", "192.0.2.2", 30, neighbour_extra) + peer("2001:db8::1", "2001:db8::2", 30)
    with scene("bfdd", "bfd\n" + router, "bfd\n" + neighbour) as here:
        yield here


def settle(here: Scene) -> None:
    until(lambda: here.router.all_up() and here.neighbour.all_up(), 20, "both sides up")


async def watched(here: Scene) -> KeepaliveWatch:
    """A watch that has seen both sessions up, from both sides."""
    watch = here.watch()
    await asyncio.to_thread(settle, here)
    end = time.monotonic() + 5
    while len(watch.book) < 2 or not all(one.required_s for one in watch.book.entries()):
        assert time.monotonic() < end, f"not seen within 5 s: both sessions, in {watch.book.entries()}"
        await asyncio.sleep(0.01)
    return watch


@isolated()
def test_without_us_the_neighbour_gives_the_router_up() -> None:
    with bfd_scene() as here:
        settle(here)
        before = here.neighbour.downs()
        with standing_still(here.router):
            until(lambda: not here.neighbour.any_up(), STILL_S, "the neighbour gives up both sessions")
        assert here.neighbour.downs() == {address: count + 1 for address, count in before.items()}


@isolated()
def test_with_us_no_session_goes_down() -> None:
    async def body(here: Scene) -> None:
        watch = await watched(here)
        with contextlib.closing(watch), here.sender() as packets:
            before = here.neighbour.downs(), here.router.downs()
            with standing_still(here.router), Impersonator(watch.book, packets.send, watch.drain) as voice:
                await asyncio.sleep(STILL_S)
                assert here.neighbour.all_up()
            sent = dict(watch.book.sent)
            # both speak for themselves again, for longer than the neighbour would wait
            await asyncio.sleep(0.5)
            assert here.neighbour.all_up()
            assert here.router.all_up()
            assert (here.neighbour.downs(), here.router.downs()) == before
            assert voice.failed == 0
            assert len(sent) == 2
            assert all(10 <= count <= 2 + STILL_S * 1.5 / 0.075 for count in sent.values()), sent

    with bfd_scene() as here:
        asyncio.run(body(here))


@isolated()
def test_a_router_that_does_not_come_back_is_missed() -> None:
    async def body(here: Scene) -> None:
        watch = await watched(here)
        watch.book.limit_s = 0.6
        with contextlib.closing(watch), here.sender() as packets, standing_still(here.router):
            began = time.monotonic()
            with Impersonator(watch.book, packets.send, watch.drain):
                until(lambda: not here.neighbour.any_up(), 3, "the neighbour gives up")
            took_s = time.monotonic() - began
            assert 0.6 < took_s < 0.6 + 0.3 + 0.5

    with bfd_scene() as here:
        asyncio.run(body(here))


@isolated()
def test_a_book_goes_to_the_next_host_meanwhile() -> None:
    async def body(here: Scene) -> None:
        watch = await watched(here)
        with contextlib.closing(watch), here.sender() as packets:
            before = here.neighbour.downs()
            with standing_still(here.router):
                with Impersonator(watch.book, packets.send, watch.drain):
                    await asyncio.sleep(STILL_S / 2)
                    letter = json.loads(json.dumps(export_book(watch.book, time.monotonic())))
                taken = import_book(letter, watch.book.mac, time.monotonic())
                assert taken.stopped_at is not None
                with Impersonator(taken, packets.send):
                    await asyncio.sleep(STILL_S / 2)
                    assert here.neighbour.all_up()
            await asyncio.sleep(0.5)
            assert here.neighbour.downs() == before
            assert here.router.all_up()

    with bfd_scene() as here:
        asyncio.run(body(here))


ECHO = "  echo-mode\n  echo transmit-interval 50\n  echo receive-interval 50\n"


def let_echoes_through(here: Scene) -> None:
    """The router sends back what bears its neighbour's own address, and the neighbour takes that for right."""
    with here.neighbour_host:
        setting("eth0/accept_local", 1)
    for one in (here.router_host, here.neighbour_host):
        with one:
            setting("eth0/rp_filter", 0)
            setting("all/rp_filter", 0)
            setting("all/send_redirects", 0)
            setting("eth0/send_redirects", 0)
    forward(here.router_host, True)


def setting(name: str, value: int) -> None:
    Path("/proc/sys/net/ipv4/conf", name).write_text(str(value))


def forward(host: Host, allowed: bool) -> None:
    with host:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1" if allowed else "0")


@contextmanager
def echoing_nothing(here: Scene) -> Iterator[None]:
    """A kernel loops echoes while its daemon is stopped; a VM that stands still loops none."""
    forward(here.router_host, False)
    try:
        yield
    finally:
        forward(here.router_host, True)


@isolated()
def test_a_neighbour_that_echoes_is_asked_not_to() -> None:
    async def body(here: Scene) -> None:
        def echoes() -> int:
            return int(here.neighbour.peers()["192.0.2.1"]["echo-packet-input"])

        watch = await watched(here)
        with contextlib.closing(watch), here.sender() as packets:
            await asyncio.to_thread(until, lambda: echoes() > 5, 5, "echoes come back")
            before = here.neighbour.downs()
            with standing_still(here.router), Impersonator(watch.book, packets.send, watch.drain):
                with echoing_nothing(here):
                    await asyncio.sleep(STILL_S)
                assert here.neighbour.all_up()
            looped = echoes()
            await asyncio.to_thread(until, lambda: echoes() > looped + 5, 5, "echoes are sent again")
            assert here.neighbour.downs() == before
            with echoing_nothing(here):
                await asyncio.to_thread(until, lambda: here.neighbour.downs() != before, 2, "it goes down")
            peer = here.neighbour.peers()["192.0.2.1"]
            assert peer["diagnostic"] == "echo function failed"

    with bfd_scene(ECHO) as here:
        let_echoes_through(here)
        asyncio.run(body(here))


@isolated()
def test_new_intervals_wait_for_the_router() -> None:
    """A Poll Sequence of the neighbour's begins while the router stands still: nobody answers it for the router."""

    async def body(here: Scene) -> None:
        def agreed() -> int:
            return int(here.router.peers()["192.0.2.2"]["remote-receive-interval"])

        watch = await watched(here)
        with contextlib.closing(watch), here.sender() as packets:
            before = here.neighbour.downs()
            with standing_still(here.router), Impersonator(watch.book, packets.send, watch.drain):
                line = "peer 192.0.2.1 local-address 192.0.2.2"
                here.neighbour.say("configure terminal", "bfd", line, "receive-interval 250")
                await asyncio.sleep(STILL_S)
                assert here.neighbour.all_up()
            await asyncio.to_thread(until, lambda: agreed() == 250, 5, "the router hears of it")
            await asyncio.sleep(0.5)
            assert here.neighbour.all_up()
            assert here.neighbour.downs() == before

    with bfd_scene() as here:
        asyncio.run(body(here))
