"""Generations, second tries, clones and the handover of a connection, against the kernel alone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct

import pytest
from dataplane_kit import isolated
from fib_kit import VIA6_A, VIA_A, VIA_B, Heard, held, staged, until

from dom0.fib import from_peer, tcp_repair
from dom0.fib.fib import Fib
from dom0.fib.message import (
    DELROUTE,
    NEWNEXTHOP,
    NEWROUTE,
    MalformedError,
    TooManyError,
    attribute,
    message,
    split,
)
from vmnet.bench.fib_stage import Namespace, veth

pytestmark = pytest.mark.root


def route(prefix: str, kind: int = NEWROUTE, **extra: int) -> bytes:
    address, _, length = prefix.partition("/")
    body = struct.pack("=BBBBBBBBI", 2, int(length), 0, 0, 254, 196, 0, 1, 0) + attribute(
        1, socket.inet_aton(address)
    )
    return message(
        kind, 0, body + b"".join(attribute(int(k[1:]), struct.pack("=I", v)) for k, v in extra.items())
    )


def next_hop(number: int, via: str) -> bytes:
    body = struct.pack("=BBBBI", 2, 0, 11, 0, 0) + attribute(1, struct.pack("=I", number))
    return message(
        NEWNEXTHOP, 0, body + attribute(6, socket.inet_aton(via)) + attribute(5, struct.pack("=I", 10))
    )


def space() -> Namespace:
    made, beyond = Namespace(), Namespace()
    veth(made, "up0", 10, beyond, "g0", 20)
    made.ip("addr", "add", "10.9.0.1/24", "dev", "up0")
    made.ip("addr", "add", "2001:db8:9::1/64", "dev", "up0", "nodad")
    return made


def many(number: int, first: int) -> list[bytes]:
    return [route(f"7.{first}.{one}.0/24", _4=10) for one in range(number)]


@isolated(30)
def test_the_number_of_routes_is_bounded() -> None:
    """What is replaced, or belongs to an earlier generation that nothing confirms, does not count."""
    place = space()
    fib = Fib(place.path, "router", most_routes=100)
    for _ in range(4):
        fib.feed(many(90, 1))
    assert len(held(place)) == 90
    fib.begin()
    fib.feed(many(90, 2))
    assert len(held(place)) == 90 and "7.2.0.0/24" in held(place)
    with pytest.raises(TooManyError, match="more than 100 routes"):
        fib.feed(many(90, 3))
    with pytest.raises(TooManyError):
        fib.feed(many(1, 4))
    other = space()
    with pytest.raises(TooManyError):
        Fib(other.path, "router", most_routes=100).install(b"".join(fib.snapshot()))
    fib.begin()
    fib.feed(many(20, 1))
    for _ in fib.sweep():
        pass
    assert len(held(place)) == 20
    fib.feed(many(60, 2))
    assert len(held(place)) == 80


@isolated(30)
def test_generations() -> None:
    """An id that is used again changes nothing under an old route; a sweep leaves what was confirmed, however often begun."""
    place = space()
    fib = Fib(place.path, "router")
    fib.feed([next_hop(7, VIA_A), route("7.0.0.0/8", _30=7), route("8.0.0.0/8", _30=7)])
    fib.begin()
    fib.feed([next_hop(7, VIA_B), route("8.0.0.0/8", _30=7)])
    assert held(place) == {"7.0.0.0/8": {(VIA_A, "up0")}, "8.0.0.0/8": {(VIA_B, "up0")}}
    assert len(list(fib.sweep())) > 1
    assert held(place) == {"8.0.0.0/8": {(VIA_B, "up0")}}
    assert place.ip("nexthop").count("via") == 1
    for number in range(40):
        fib.begin()
        fib.feed([next_hop(1, VIA_A), route(f"{20 + number}.0.0.0/8", _30=1)])
    assert len(held(place)) <= 17
    again = Fib(place.path, "router")
    generation = again.begin()
    again.feed([next_hop(1, VIA_B), route("99.0.0.0/8", _30=1)])
    list(again.sweep())
    assert again.generation == generation
    assert held(place) == {"99.0.0.0/8": {(VIA_B, "up0")}}


@isolated(30)
def test_what_comes_too_early_goes_in_later() -> None:
    now = [0.0]
    place = space()
    fib = Fib(place.path, "router", lambda: now[0])
    fib.feed(
        [
            route("7.0.0.0/8", _30=7),
            route("8.0.0.0/8", _30=8),
            route("8.0.0.0/8", DELROUTE),
            route("6.0.0.0/8", _30=7),
        ]
    )
    assert fib.counts().waiting == 2
    fib.feed([next_hop(7, VIA_A)])
    now[0] = 1
    fib.tend(0.02)
    assert held(place).keys() == {"6.0.0.0/8", "7.0.0.0/8"}
    assert fib.counts().waiting == 0


@isolated(30)
def test_a_deletion_waits_a_moment_for_its_replacement() -> None:
    now = [0.0]
    place = space()
    fib = Fib(place.path, "router", lambda: now[0])
    changes: list[bytes] = []
    fib.feed([next_hop(7, VIA_A), route("7.0.0.0/8", _30=7)])
    fib.on_change = changes.append
    fib.feed([route("7.0.0.0/8", DELROUTE)])
    fib.tend(0.02)
    assert held(place)
    fib.feed([route("7.0.0.0/8", _30=7)])
    assert [one[4] for one in changes] == [NEWROUTE]
    fib.feed([route("7.0.0.0/8", DELROUTE)])
    now[0] = 0.03
    fib.tend(0.02)
    assert not held(place)


@isolated(30)
def test_a_clone_is_equal_and_takes_nothing_else() -> None:
    place, copy = space(), space()
    fib, there = Fib(place.path, "router"), Fib(copy.path, "router")
    fib.feed([next_hop(7, VIA_A), next_hop(9, VIA_B)])
    group = attribute(1, struct.pack("=I", 3)) + attribute(
        2, struct.pack("=IIII", 7, 0, 9, 0)[:8] + struct.pack("=II", 9, 0)
    )
    fib.feed(
        [message(NEWNEXTHOP, 0, struct.pack("=BBBBI", 0, 0, 11, 0, 0) + group), route("7.0.0.0/8", _30=3)]
    )
    fib.feed([route(f"20.{n >> 8}.{n & 255}.0/24", _30=7) for n in range(3000)])
    place.ip("neigh", "add", VIA_A, "lladdr", "02:00:00:00:00:01", "dev", "up0", "nud", "stale")
    place.ip("addr", "add", "10.55.0.1/24", "dev", "up0")
    chunks = list(fib.snapshot())
    assert max(map(len, chunks)) <= 65536
    for chunk in chunks:
        assert b"".join(from_peer.checked(one, 0).message for one in split(chunk)) == chunk
        there.install(chunk)
    assert there.counts().errors == 0
    assert held(copy) == held(place)
    assert len(held(copy)["7.0.0.0/8"]) == 2
    assert "REACHABLE" in copy.ip("neigh", "show", VIA_A)
    assert "10.55.0.1/24" in copy.ip("addr")
    assert VIA6_A not in copy.ip("-6", "route")
    with pytest.raises(MalformedError):
        there.install(message(16, 0, bytes(16)))


@isolated(30)
def test_no_byte_is_lost_or_repeated_in_a_handover() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    sent = os.urandom(300_000)
    client.sendall(sent[:1000])
    server.sendall(b"hello")
    got = server.recv(400)
    state = tcp_repair.parse(json.loads(json.dumps(tcp_repair.freeze(server).to_json())))
    assert state.unread == sent[400:1000]
    listener.close()
    tcp_repair.drop(server)
    again = tcp_repair.thaw(state, "lo")
    client.settimeout(10)
    assert client.recv(5) == b"hello"
    writer = asyncio.run(_both(client, again, sent[1000:], len(sent) - 400))
    assert got + writer == sent
    again.sendall(b"bye")
    assert client.recv(3) == b"bye"


async def _both(client: socket.socket, server: socket.socket, data: bytes, size: int) -> bytes:
    def read() -> bytes:
        server.settimeout(10)
        found = b""
        while len(found) < size:
            found += server.recv(65536)
        return found

    _, found = await asyncio.gather(asyncio.to_thread(client.sendall, data), asyncio.to_thread(read))
    return found


@isolated(60)
def test_a_migration_that_is_called_off_goes_on_here() -> None:
    async def body() -> None:
        heard = Heard()
        fib = Fib(stage.fib.path, "router")
        sessions = heard.sessions(fib, stage.fib)
        await sessions.start()
        agent = stage.agent("-r")
        await until(lambda: heard.synced, 10, "synchronisation")
        stage.vm.ip("route", "add", "7.0.0.0/8", "via", VIA_A)
        await until(lambda: "7.0.0.0/8" in held(stage.fib), 5, "route")
        assert len(await sessions.freeze()) == 1
        stage.vm.ip("route", "add", "8.0.0.0/8", "via", VIA_A)
        generation = fib.generation
        await sessions.unfreeze()
        await until(lambda: "8.0.0.0/8" in held(stage.fib), 10, "route that was told meanwhile")
        assert fib.generation == generation
        agent.kill()
        await sessions.close()

    with staged() as stage:
        asyncio.run(body())
