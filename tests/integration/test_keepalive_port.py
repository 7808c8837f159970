"""The watch at a kernel's tap, and whether the impersonator keeps to its times while the event loop does not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from dataplane_kit import GUEST, Host, Packets, Tap, frame, isolated

from dom0.router.keepalive import KeepaliveBook
from dom0.router.keepalive_port import Impersonator, KeepaliveWatch
from dom0.router.packet import ones_sum

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
PEER = bytes.fromhex("525400000002")


def control(neighbour: int, back: bool = False, state: int = 3, tag: bytes = b"", version: int = 4) -> bytes:
    """BFD at 100 ms x 3 between the guest and one of its neighbours, without a checksum (IPv6: with the pseudo-header's)."""
    body = struct.pack("!BBBBIIIII", 0x20, state << 6, 3, 24, 7, 7, 100_000, 100_000, 0)
    ends = [bytes((192, 0, 2, 1)), struct.pack("!HH", 0xC612, neighbour)]
    if version == 6:
        ends = [bytes.fromhex("fe80") + bytes(10) + one for one in ends]
    source, there = reversed(ends) if back else ends
    macs = GUEST + PEER if back else PEER + GUEST
    if version == 6:
        partial = ones_sum(source + there + struct.pack("!HH", 32, 17))
        udp = struct.pack("!HHHH", 49152, 3784, 32, partial)
        return (
            macs
            + tag
            + b"\x86\xdd"
            + struct.pack("!IHBB", 6 << 28, 32, 17, 255)
            + source
            + there
            + udp
            + body
        )
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 52, 0, 0, 255, 17, 0, source, there)
    header = header[:10] + struct.pack("!H", 0xFFFF - ones_sum(header)) + header[12:]
    return macs + tag + b"\x08\x00" + header + struct.pack("!HHHH", 49152, 3784, 32, 0) + body


async def until_async(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end, f"not within 5 s: {what}"
        await asyncio.sleep(0.002)


def at_a_tap(body: Callable[[Tap, KeepaliveWatch], Awaitable[None]]) -> None:
    async def run() -> None:
        tap = Tap("tap0")
        with contextlib.closing(KeepaliveWatch("tap0", GUEST)) as watch:
            await body(tap, watch)

    with Host():
        asyncio.run(run())


@isolated()
def test_the_watch_hears_both_sides_and_nothing_else() -> None:
    async def body(tap: Tap, watch: KeepaliveWatch) -> None:
        others = [
            control(1, tag=b"\x81\x00\x00\x07"),
            control(2)[:40],
            frame(1),
            control(3).replace(struct.pack("!HH", 49152, 3784), struct.pack("!HH", 3784, 53)),
        ]
        for one in (*others, control(4), control(5, version=6)):
            tap.write(one)
        # what comes from the wire is not the guest's word, whatever address it bears
        Packets("tap0").send(control(6))
        Packets("tap0").send(control(4, back=True))
        await until_async(
            lambda: any(one.required_s for one in watch.book.entries()), "the neighbour was heard"
        )
        assert len(watch.book) == 2
        assert [one.required_s for one in watch.book.entries()] == [0.1, 0.0]

    at_a_tap(body)


@isolated()
def test_the_kernel_drops_what_is_no_keepalive() -> None:
    async def body(tap: Tap, watch: KeepaliveWatch) -> None:
        for number in range(50):
            tap.write(frame(number))
            tap.write(control(number, tag=b"\x81\x00\x00\x07"))
        with pytest.raises(BlockingIOError):
            watch._socket.recv(2048)

    at_a_tap(body)


@isolated()
def test_a_flood_leaves_the_loop_alone() -> None:
    async def body(tap: Tap, watch: KeepaliveWatch) -> None:
        for number in range(200):
            tap.write(control(number))
        assert not watch.drain()
        assert len(watch.book) == 64
        await until_async(lambda: len(watch.book) == 200, "the rest of it")

    at_a_tap(body)


@isolated()
def test_a_tap_that_goes_is_silent() -> None:
    async def body(tap: Tap, watch: KeepaliveWatch) -> None:
        tap.write(control(1))
        await until_async(lambda: len(watch.book) == 1, "a session")
        os.close(tap.fd)
        await asyncio.sleep(0.05)
        assert watch.drain()
        watch.close()
        watch.close()
        assert len(watch.book) == 1

    at_a_tap(body)


def test_there_must_be_a_tap() -> None:
    async def body() -> None:
        with pytest.raises(OSError):
            KeepaliveWatch("no-such-tap", GUEST)

    asyncio.run(body())


def remembered(sessions: int) -> KeepaliveBook:
    book = KeepaliveBook(GUEST)
    for number in range(sessions):
        book.seen(control(number), time.monotonic())
    return book


def test_it_keeps_its_times_while_the_loop_does_not() -> None:
    """The loop's thread computes all the time; the interpreter's lock is what the two share."""
    sent: dict[bytes, list[float]] = {}
    voice = Impersonator(remembered(20), lambda one: sent.setdefault(one, []).append(time.monotonic()))
    with voice:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            sum(range(1000))
    assert len(sent) == 20
    assert max(after - before for times in sent.values() for before, after in pairwise(times)) < 0.2
    assert sum(map(len, sent.values())) == voice.book.sent.total()


def test_a_link_that_takes_nothing_is_counted() -> None:
    def refuse(_frame: bytes) -> None:
        raise OSError(105, "no room")

    voice = Impersonator(remembered(2), refuse)
    with voice:
        voice.start()
        end = time.monotonic() + 5
        while voice.failed < 4:
            assert time.monotonic() < end, "not within 5 s: both sessions' frames tried twice"
            time.sleep(0.002)
    voice.stop()
    assert voice.book.stopped_at is None


def test_the_last_words_come_first() -> None:
    book = remembered(1)
    sent: list[bytes] = []
    with Impersonator(book, sent.append, lambda: book.seen(control(0, state=0), time.monotonic())):
        assert len(book) == 0
    assert not sent
