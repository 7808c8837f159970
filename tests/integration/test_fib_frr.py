"""FRR's table in a namespace's kernel, entry by entry, over flaps, restarts and a move to another host."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import select
import socket
import struct
from typing import Any

import pytest
from dataplane_kit import isolated
from fib_kit import (
    MANAGEMENT,
    VIA6_A,
    VIA6_B,
    VIA_A,
    VIA_B,
    Heard,
    Stage,
    held,
    rib,
    staged,
    until,
)

from dom0.fib.fib import Fib
from dom0.fib.settings import FibSettings
from vmnet.bench.fib_stage import Frr, Namespace, veth

pytestmark = pytest.mark.root

STATIC = [
    f"ip route 7.0.0.0/8 {VIA_A}",
    f"ip route 7.0.0.0/8 {VIA_B}",
    f"ip route 8.0.0.0/8 {VIA_A}",
    "ip route 9.0.0.0/8 blackhole",
    f"ip route 0.0.0.0/0 {VIA_A}",
    f"ipv6 route 2001:db8:77::/48 {VIA6_A}",
    f"ipv6 route 2001:db8:77::/48 {VIA6_B}",
    "ipv6 route 2001:db8:78::/48 up0",
]


def normal(table: dict[str, Any]) -> dict[str, Any]:
    """A blackhole's device differs by family and teller; a default route has two names."""
    names = {"default": "0.0.0.0/0"}
    return {
        names.get(prefix, prefix): {(via, "" if via == "blackhole" else device) for via, device in hops}
        for prefix, hops in table.items()
    }


async def same(frr: Frr, space: Namespace, limit_s: float = 15) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while True:
        wanted, found = await asyncio.to_thread(lambda: (normal(rib(frr)), normal(held(space))))
        if wanted == found and wanted:
            return
        assert loop.time() < deadline, f"FRR has {wanted}, the kernel {found}"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("groups", [True, False])
@isolated(60)
def test_flaps_end_in_the_same_table(groups: bool) -> None:
    async def body(stage: Stage, frr: Frr) -> None:
        heard = Heard()
        fib = Fib(stage.fib.path, "router")
        sessions = heard.sessions(fib, stage.fib)
        await sessions.start()
        await same(frr, stage.fib)
        await until(lambda: heard.synced, 10, "synchronisation")
        dice = random.Random(7)
        for _ in range(3):
            lines = []
            for number in range(60):
                no = "no " if dice.random() < 0.4 else ""
                lines.append(f"{no}ip route 30.{number % 20}.0.0/16 {dice.choice([VIA_A, VIA_B])}")
                lines.append(
                    f"{no}ipv6 route 2001:db8:{number % 20 + 256:x}::/48 {dice.choice([VIA6_A, VIA6_B])}"
                )
            await asyncio.to_thread(frr.configure, [one for one in lines if one])
            await same(frr, stage.fib)
        assert sum(len(hops) == 2 for hops in held(stage.fib).values()) > 2
        await sessions.close()

    with staged() as stage:
        stage.address_fib()
        frr = stage.frr(groups)
        frr.configure(STATIC)
        asyncio.run(body(stage, frr))
        frr.kill()


@isolated(60)
def test_a_table_that_always_changes_is_whole_when_nothing_new_comes() -> None:
    """As with the Internet's table: some routes change every second, for ever."""

    async def body(stage: Stage, frr: Frr) -> None:
        heard = Heard()
        fib = Fib(stage.fib.path, "router")
        sessions = heard.sessions(fib, stage.fib)
        steps = itertools.cycle(
            (
                [f"ip route 8.0.0.0/8 {VIA_B}"],
                [f"no ip route 8.0.0.0/8 {VIA_B}"],
                [f"no ip route 8.0.0.0/8 {VIA_A}"],
            )
        )
        changes = 0

        async def change() -> None:
            nonlocal changes
            while True:
                await asyncio.to_thread(frr.configure, next(steps))
                changes += 1
                if changes % 3 == 0:
                    await asyncio.to_thread(frr.configure, [f"ip route 8.0.0.0/8 {VIA_A}"])
                await asyncio.sleep(0.3)

        changing = asyncio.create_task(change())
        await until(lambda: changes > 3, 15, "changes")
        await sessions.start()
        await until(lambda: heard.synced, 20, "synchronisation")
        before = changes
        await until(lambda: changes > before, 10, "another change")
        changing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await changing
        await same(frr, stage.fib)
        await sessions.close()

    with staged() as stage:
        stage.address_fib()
        frr = stage.frr()
        frr.configure(STATIC)
        asyncio.run(body(stage, frr))
        frr.kill()


class Pings:
    """Numbered datagrams through the router's namespace to its neighbour; which came."""

    def __init__(self, stage: Stage) -> None:
        client = Namespace()
        veth(client, "c0", 30, stage.fib, "down0", 31)
        client.ip("addr", "add", "10.8.0.2/24", "dev", "c0")
        stage.fib.ip("addr", "add", "10.8.0.1/24", "dev", "down0")
        client.ip("route", "add", "default", "via", "10.8.0.1")
        stage.fib.sysctl("ipv4.ip_forward", "1")
        for address in (f"{VIA_A}/24", f"{VIA_B}/24"):
            stage.gen.ip("addr", "add", address, "dev", "g1")
        for address in ("7.7.7.7/32", "8.8.8.8/32"):
            stage.gen.ip("addr", "add", address, "dev", "lo")
        with stage.gen:
            self._sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._sink.bind(("0.0.0.0", 7000))
        with client:
            self._source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sent = 0
        self.came: set[int] = set()

    async def run(self, while_: asyncio.Task[None]) -> None:
        """One to each address every 2 ms."""
        while not while_.done():
            self.send()
            await asyncio.sleep(0.002)
            self.take()
        while select.select([self._sink], [], [], 0.2)[0]:
            self.take()

    def send(self) -> None:
        for address in ("7.7.7.7", "8.8.8.8"):
            self._source.sendto(struct.pack("!I", self.sent), (address, 7000))
            self.sent += 1

    def take(self) -> None:
        while select.select([self._sink], [], [], 0)[0]:
            self.came.add(struct.unpack("!I", self._sink.recv(64))[0])


@isolated(60)
def test_a_killed_zebra_loses_no_packet() -> None:
    async def body(stage: Stage, frr: Frr) -> None:
        heard = Heard()
        fib = Fib(stage.fib.path, "router")
        sessions = heard.sessions(fib, stage.fib)
        await sessions.start()
        await until(lambda: heard.synced, 15, "synchronisation")
        pings = Pings(stage)
        before = fib.counts()

        async def restart() -> None:
            await asyncio.to_thread(frr.kill)
            # gone while nobody tells of it: only a sweep can find that out
            stage.vm.ip("route", "del", "blackhole", "9.0.0.0/8")
            # another next hop gets the number that the first one had
            await asyncio.to_thread(frr.start, [f"ip route 7.0.0.0/8 {VIA_B}", f"ip route 8.0.0.0/8 {VIA_B}"])
            await until(lambda: fib.counts().generation != before.generation, 15, "new session")
            await until(lambda: fib.counts().swept, 15, "sweep")
            await same(frr, stage.fib)

        task = asyncio.create_task(restart())
        await pings.run(task)
        await task
        assert "9.0.0.0/8" not in held(stage.fib)
        assert pings.sent > 500
        assert len(pings.came) == pings.sent
        await sessions.close()

    with staged() as stage:
        stage.address_fib()
        frr = stage.frr(static=STATIC)
        asyncio.run(body(stage, frr))
        frr.kill()


@isolated(60)
def test_the_session_moves_to_another_host() -> None:
    """Two namespaces with the same management address; the router is plugged from one to the other and does not notice."""

    async def body(stage: Stage, frr: Frr) -> None:
        heard, there = Heard(), Heard()
        fib = Fib(stage.fib.path, "router")
        sessions = heard.sessions(fib, stage.fib)
        agent = stage.agent()
        await sessions.start()
        await until(lambda: heard.synced, 15, "synchronisation")
        since = len(heard.changes)
        chunks = fib.snapshot()
        first = next(chunks)
        await asyncio.to_thread(
            frr.configure, [f"ip route 40.0.0.0/8 {VIA_A}", f"no ip route 8.0.0.0/8 {VIA_A}"]
        )
        await same(frr, stage.fib)

        other = Namespace()
        veth(other, "up0", 10, stage.gen, "g2", 22)
        other_fib = Fib(other.path, "router")
        for chunk in (first, *chunks, *heard.changes[since:]):
            assert len(chunk) <= 65536
            other_fib.install(chunk)
        states = json.loads(json.dumps(await sessions.freeze()))
        assert {one["kind"] for one in states} == {"agent", "fpm"}
        # written into a connection that is nowhere: it has to arrive at the other host
        await asyncio.to_thread(frr.configure, [f"ip route 41.0.0.0/8 {VIA_A}"])
        mac = json.loads(stage.fib.ip("-j", "link", "show", "mgmt"))[0]["address"]
        stage.fib.ip("link", "set", "mgmt", "netns", other.path)
        # as long as its VM does not run there, nothing reaches a host: here, because it is another station that answers no ARP
        # (a link that goes to another namespace goes down: the router asks anew, and a reset would end its sessions)
        other.ip("link", "set", "mgmt", "address", "02:00:00:00:00:99", "arp", "off", "up")
        other.ip("addr", "add", f"{MANAGEMENT}/24", "dev", "mgmt")
        await sessions.close()
        moved = there.sessions(other_fib, other)
        await moved.start()
        await moved.thaw(states)
        other.ip("link", "set", "mgmt", "address", mac, "arp", "on")
        await same(frr, other)
        await asyncio.to_thread(frr.configure, [f"ip route 42.0.0.0/8 {VIA_B}"])
        stage.vm.ip("addr", "add", "10.9.0.77/24", "dev", "up0")
        await same(frr, other)
        await until(lambda: "10.9.0.77/24" in {str(one) for one in there.addresses}, 10, "address")
        assert other_fib.counts().generation == fib.counts().generation
        await until(lambda: there.synced, 10, "synchronisation")
        agent.kill()
        await moved.close()

    with staged() as stage:
        frr = stage.frr()
        frr.configure(STATIC)
        asyncio.run(body(stage, frr))
        frr.kill()


@isolated(60)
def test_garbage_ends_its_session_and_no_other() -> None:
    async def body(stage: Stage) -> None:
        heard = Heard()
        fib = Fib(stage.fib.path, "router")
        sessions = heard.sessions(fib, stage.fib, FibSettings(settle_s=1, restart_s=1, addresses_s=0))
        await sessions.start()
        with stage.vm:
            bad = socket.create_connection((MANAGEMENT, 2620))
        bad.sendall(b"\x01\x01\x00\x20" + b"\xff" * 28)
        bad.settimeout(0)
        await until(lambda: _closed(bad), 5, "end of the session")
        agent = stage.agent()
        await until(lambda: "10.9.0.1/24" in {str(one) for one in heard.addresses}, 5, "addresses")
        assert {"lo", "up0", "mgmt"} <= {one.name for one in heard.links.values()}
        agent.kill()
        await sessions.close()

    with staged() as stage:
        asyncio.run(body(stage))


def _closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
