"""Flows change their path over real Open vSwitches while packets take it: none lost, and nothing left of the old path."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
from dataplane_kit import Traffic, isolated, until
from ovs_kit import Fabric

from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Change, Command, Flow
from controller_bridge.openflow.match import Match
from controller_bridge.paths import Hop
from controller_bridge.reroute import Reroute
from controller_bridge.switch import Switch
from vmnet.errors import RefusedError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
SERVER, CLIENT = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
ETHERTYPE = 0x88B5  # for experiments (IEEE 802)
WANTED = Match.of(eth_dst=SERVER)
RATE = 1000
_RECEIVE_BUFFER = 33  # SO_RCVBUFFORCE


def entry(hop: Hop, ported: bool) -> Flow:
    port = {"in_port": hop.in_port} if ported else {}
    return Flow(100, Match.of(eth_dst=SERVER, **port), action.apply([action.output(hop.out_port)]), cookie=8)


class Scene:
    """The fabric, our connections to it, and numbered packets from client to server."""

    def __init__(self, fabric: Fabric, switches: dict[str, Switch]) -> None:
        self.fabric, self.switches = fabric, switches
        self.old = fabric.path("client", "s1", "s2", "s4", "server")
        self.new = fabric.path("client", "s1", "s3", "s4", "server")
        with fabric.ends["client"]:
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._out.bind(("eth0", 0))
        with fabric.ends["server"]:
            self._in = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
            self._in.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER, 64 << 20)
            self._in.bind(("eth0", ETHERTYPE))
            self._in.setblocking(False)
        self.got: list[int] = []

    async def fill(self, ported: bool) -> None:
        for hop in self.old:
            await self.switches[hop.switch].commit([Change(Command.ADD, entry(hop, ported))])

    def send(self) -> Traffic:
        head = SERVER + CLIENT + struct.pack("!H", ETHERTYPE)
        return Traffic(
            self._out.send, RATE, lambda number: [(head + struct.pack("!I", number)).ljust(60, b"\0")]
        )  # type: ignore[arg-type]

    def read(self) -> int:
        """How many have arrived."""
        while True:
            try:
                self.got.append(struct.unpack_from("!I", self._in.recv(100), 14)[0])
            except BlockingIOError:
                return len(self.got)

    async def some_arrive(self, count: int) -> None:
        wanted = self.read() + count
        await asyncio.to_thread(until, lambda: self.read() >= wanted, 5, f"{count} packets arrive")

    async def all_arrive(self, sent: int) -> None:
        """In order, each once."""
        with contextlib.suppress(AssertionError):
            await asyncio.to_thread(until, lambda: self.read() >= sent, 5, f"all of {sent} arrive")
        missing = sorted(set(range(sent)) - set(self.got))
        assert not missing, f"{len(missing)} of {sent} are lost: {missing[:20]}"
        assert self.got == list(range(sent))

    def flows(self) -> dict[str, list[str]]:
        return {name: one.dump() for name, one in self.fabric.switches.items()}


def over_the_fabric(body: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        fabric = Fabric()
        switches = {name: await Switch.connect(one.address) for name, one in fabric.switches.items()}
        try:
            await body(Scene(fabric, switches))
        finally:
            for one in switches.values():
                one.close()

    asyncio.run(run())


@pytest.mark.parametrize("ported", [False, True])
@isolated()
def test_no_packet_is_lost_and_the_old_path_goes(ported: bool) -> None:
    async def body(scene: Scene) -> None:
        await scene.fill(ported)
        running = scene.send()
        await scene.some_arrive(100)
        move = await Reroute.between(scene.switches, scene.old, scene.new, WANTED)
        await move.prepare()
        await scene.some_arrive(100)
        assert len(scene.flows()["s3"]) == 1
        await move.cut_over()
        await move.confirm_cut()
        await scene.some_arrive(100)
        await move.finish()
        sent = running.stop()
        await scene.all_arrive(sent)
        left = scene.flows()
        assert left["s2"] == []
        assert [len(left[name]) for name in ("s1", "s3", "s4")] == [1, 1, 1]

    over_the_fabric(body)


@isolated()
def test_rolling_back_after_the_cut_puts_everything_back() -> None:
    async def body(scene: Scene) -> None:
        await scene.fill(True)
        before = scene.flows()
        running = scene.send()
        move = await Reroute.between(scene.switches, scene.old, scene.new, WANTED)
        await move.prepare()
        await move.cut_over()
        await scene.some_arrive(100)
        await move.roll_back()
        await scene.some_arrive(100)
        sent = running.stop()
        await scene.all_arrive(sent)
        assert scene.flows() == before

    over_the_fabric(body)


@isolated()
def test_what_a_switch_refuses_leaves_nothing() -> None:
    async def body(scene: Scene) -> None:
        await scene.fill(False)
        scene.fabric.switches["s3"].vsctl(
            *(
                "--",
                "--id=@full",
                "create",
                "flow_table",
                "flow_limit=0",
                "--",
                "set",
                "bridge",
                "s3",
                "flow_tables:0=@full",
            )
        )
        before = scene.flows()
        move = await Reroute.between(scene.switches, scene.old, scene.new, WANTED)
        with pytest.raises(RefusedError, match="table full"):
            await move.prepare()
        assert scene.flows() == before

    over_the_fabric(body)


@isolated()
def test_a_switch_that_nobody_is_connected_to() -> None:
    async def body(scene: Scene) -> None:
        await scene.fill(False)
        known = {name: one for name, one in scene.switches.items() if name != "s3"}
        with pytest.raises(RefusedError, match="no connection to s3"):
            await Reroute.between(known, scene.old, scene.new, WANTED)

    over_the_fabric(body)
