"""Our OpenFlow against a real Open vSwitch: what it has, what it is told, what it refuses, and when it dies."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable

import pytest
from dataplane_kit import Host, isolated, veth
from ovs_kit import Ovs

from controller_bridge.address import Address
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import EXACTLY, SAME_OWNER, Change, Command, Flow
from controller_bridge.openflow.match import Match
from controller_bridge.switch import Switch
from vmnet.errors import RefusedError, UnavailableError, WaitTimeoutError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
MACS = [number.to_bytes(6, "big") for number in range(1, 2001)]


def entry(mac: bytes, port: int, cookie: int = 7, priority: int = 100) -> Flow:
    return Flow(priority, Match.of(eth_dst=mac), action.apply([action.output(port)]), cookie)


def added(flows: list[Flow]) -> list[Change]:
    return [Change(Command.ADD, one) for one in flows]


def talk(ovs: Ovs, body: Callable[[Switch], Awaitable[None]]) -> None:
    async def run() -> None:
        switch = await Switch.connect(ovs.address)
        try:
            await body(switch)
        finally:
            switch.close()

    asyncio.run(run())


VERSIONS = {"OpenFlow13": 4, "OpenFlow13,OpenFlow14": 5}


@pytest.mark.parametrize("protocols", VERSIONS)
@isolated()
def test_flows_are_there_when_it_says_so(protocols: str) -> None:
    ovs = Ovs("s1", protocols)

    async def body(switch: Switch) -> None:
        assert switch.channel.version == VERSIONS[protocols]
        await switch.change(added([entry(mac, 1) for mac in MACS[:10]]))
        await switch.commit(added([entry(mac, 2, cookie=8) for mac in MACS[10:]]))
        own = await switch.flows(8, EXACTLY)
        assert {one.flow for one in own} == {entry(mac, 2, cookie=8) for mac in MACS[10:]}
        assert len(await switch.flows()) == len(MACS)
        await switch.commit([Change(Command.MODIFY_STRICT, entry(MACS[0], 3), SAME_OWNER)])
        assert entry(MACS[0], 3) in [one.flow for one in await switch.flows(7, EXACTLY)]
        await switch.commit([Change(Command.DELETE_STRICT, entry(mac, 0), SAME_OWNER) for mac in MACS[:10]])
        assert not await switch.flows(7, EXACTLY)

    talk(ovs, body)
    assert len(ovs.dump() if protocols != "OpenFlow13" else []) in (0, len(MACS) - 10)


@isolated()
def test_what_has_another_cookie_is_not_touched() -> None:
    ovs = Ovs("s1")

    async def body(switch: Switch) -> None:
        await switch.change(added([entry(MACS[0], 1, cookie=2)]))
        await switch.commit([Change(Command.MODIFY_STRICT, entry(MACS[0], 2, cookie=4), SAME_OWNER)])
        await switch.commit([Change(Command.DELETE_STRICT, entry(MACS[0], 2, cookie=4), SAME_OWNER)])
        assert [one.flow for one in await switch.flows()] == [entry(MACS[0], 1, cookie=2)]

    talk(ovs, body)


UNKNOWN_FIELD = Match(bytes.fromhex("8000c80100"))
WRONG = {
    "refused when it is put in": (Flow(5, UNKNOWN_FIELD, b""), "bad match: bad field"),
    "refused when it is done": (Flow(5, Match(), b"", table=0xFF), "flow mod failed: bad table id"),
}


@pytest.mark.parametrize("protocols", VERSIONS)
@pytest.mark.parametrize("what", WRONG)
@isolated()
def test_a_bundle_is_all_or_nothing(protocols: str, what: str) -> None:
    ovs = Ovs("s1", protocols)
    wrong, why = WRONG[what]

    async def body(switch: Switch) -> None:
        with pytest.raises(RefusedError, match=why):
            await switch.commit(added([entry(MACS[0], 1), wrong]))
        assert not await switch.flows()
        with pytest.raises(RefusedError, match=f"refuses 1 of 2 changes; the first: {why}"):
            await switch.change(added([entry(MACS[0], 1), wrong]))
        assert len(await switch.flows()) == 1
        await switch.commit(added([entry(MACS[1], 1)]))  # the connection is as good as before

    talk(ovs, body)


@isolated()
def test_its_ports() -> None:
    ovs = Ovs("s1")
    veth(ovs.host, "left", Host(), "far")
    number = ovs.add_port("left")

    async def body(switch: Switch) -> None:
        ports = {one.name: one for one in await switch.ports()}
        assert ports["left"].number == number
        assert ports["left"].live
        assert len(ports["left"].mac) == 6
        assert switch.features.datapath

    talk(ovs, body)


@isolated()
def test_a_switch_that_dies_is_missed_by_who_waits_for_it() -> None:
    ovs = Ovs("s1")

    async def body(switch: Switch) -> None:
        await switch.barrier()
        waiting = asyncio.ensure_future(switch.flows())
        ovs.kill()
        with pytest.raises(UnavailableError):
            await waiting
            await switch.barrier()
        with pytest.raises(UnavailableError):
            await switch.commit(added([entry(MACS[0], 1)]))

    talk(ovs, body)
    with pytest.raises(UnavailableError, match="no switch at unix:"):
        talk(ovs, body)
    ovs.start()

    async def again(switch: Switch) -> None:
        await switch.barrier()

    talk(ovs, again)


def test_one_that_accepts_and_says_nothing() -> None:
    # Python 3.13 closes the connection of a writer that nobody holds.
    kept: list[asyncio.StreamWriter] = []

    async def body() -> None:
        server = await asyncio.start_server(lambda _reader, writer: kept.append(writer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(WaitTimeoutError, match="hello did not come within"):
            await Switch.connect(Address("tcp", "127.0.0.1", port), limit_s=0.2)
        assert len(kept) == 1
        server.close()

    asyncio.run(body())


def test_one_that_speaks_something_else() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    async def body() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((UnavailableError, WaitTimeoutError)):
            await Switch.connect(Address("tcp", "127.0.0.1", port), limit_s=0.5)
        server.close()

    asyncio.run(body())
