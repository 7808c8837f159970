"""A fabric of real Open vSwitches that our own controller steers, with its API, two hosts for a VM, and a client."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dataplane_kit import Host, Traffic, until, veth
from ovs_kit import Fabric, folder

from controller_bridge import trace
from controller_bridge.address import Address
from controller_bridge.api.desk import Desk
from controller_bridge.api.door import Door
from controller_bridge.controller import Controller
from controller_bridge.core import neighbours
from controller_bridge.core.core import Core
from controller_bridge.core.places import Places
from controller_bridge.fabric import End
from controller_bridge.openflow.match import Field
from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.vmnet import VmnetRerouter, open_vmnet
from controller_bridge.switch import Switch
from vmnet.config.model import Tls
from vmnet.peer.identity import server_context

KEY = b"k" * 32
VM, CLIENT = bytes.fromhex("525400000001"), bytes.fromhex("020000000001")
VM_IP, CLIENT_IP = ip_address("10.1.0.10"), ip_address("10.1.0.1")
GATEWAYS = frozenset({ip_address("10.1.0.254")})
ETHERTYPE = 0x88B5  # for experiments (IEEE 802)
RATE = 1000
MOVE = Move("m1", "uuid", "a", "b", (VM.hex(":"),), (str(VM_IP),))
BACK = Move("m2", "uuid", "b", "a", (VM.hex(":"),), (str(VM_IP),))
_RECEIVE_BUFFER = 33  # SO_RCVBUFFORCE
HOSTS = {"a": End("s2", "host-a"), "b": End("s3", "host-b"), "c": End("s4", "server")}


class Scene:
    """client - s1 - (s2 with host a, or s3 with host b) - s4 with host c. The VM is a raw socket at host a, or b."""

    def __init__(self) -> None:
        self.fabric = Fabric()
        self.hosts = {"a": Host(), "b": Host(), "c": self.fabric.ends["server"]}
        for name, switch in (("a", "s2"), ("b", "s3")):
            veth(self.hosts[name], "eth0", self.fabric.switches[switch].host, f"host-{name}")
            self.fabric.ports[switch, name] = self.fabric.switches[switch].add_port(f"host-{name}")
        self.fabric.ports["s4", "c"] = self.fabric.ports["s4", "server"]
        self.sockets = [one.folder / "controller.sock" for one in self.fabric.switches.values()]
        for number, (name, ovs) in enumerate(self.fabric.switches.items(), 1):
            ovs.vsctl("set", "bridge", name, f"other-config:datapath-id={number:016x}")
            ovs.vsctl("set-controller", name, f"unix:{ovs.folder}/controller.sock")
            ovs.vsctl("set", "controller", name, "connection_mode=out-of-band", "max_backoff=1000")
        self.wires = {
            name: raw(host) for name, host in {**self.hosts, "client": self.fabric.ends["client"]}.items()
        }
        self.got: dict[str, list[int]] = {"a": [], "b": []}
        self.api = Path(folder()) / "controller-api.sock"

    @asynccontextmanager
    async def controller(
        self, listen: tuple[Address, ...] = (), tls: Tls | None = None, sizes: dict[str, int] | None = None
    ) -> AsyncIterator[Controller]:
        for one in self.sockets:
            one.unlink(missing_ok=True)
        core = Core(KEY, GATEWAYS, Places(HOSTS), sizes or {})
        made = Controller(core, {number: f"s{number}" for number in range(1, 5)})
        door = Door(Desk(made), HOSTS, server_context(tls) if tls else None)
        await made.start([Address("unix", str(one)) for one in self.sockets])
        await door.open((Address("unix", str(self.api)), *listen))
        try:
            yield made
        finally:
            await door.close()
            await made.close()

    def rerouter(self) -> VmnetRerouter:
        return open_vmnet({"controller": f"unix:{self.api}"})

    async def speak(self, controller: Controller) -> None:
        """The VM at host a and the client are heard; the tables know both."""
        self.wires["a"].send(neighbours.question(VM_IP, VM, VM_IP))
        self.wires["client"].send(neighbours.question(CLIENT_IP, CLIENT, CLIENT_IP))
        await until_async(lambda: {VM, CLIENT} <= controller.core.hosts.stations.keys(), "both are known")
        await controller.quiet.wait()

    def send(self) -> Traffic:
        head = VM + CLIENT + struct.pack("!H", ETHERTYPE)
        return Traffic(
            self.wires["client"].send,  # type: ignore[arg-type]
            RATE,
            lambda number: [(head + struct.pack("!I", number)).ljust(60, b"\0")],
        )

    def read(self, host: str) -> int:
        while True:
            try:
                said = self.wires[host].recv(2000)
            except BlockingIOError:
                return len(self.got[host])
            if said[:6] == VM and said[12:14] == struct.pack("!H", ETHERTYPE):
                self.got[host].append(struct.unpack_from("!I", said, 14)[0])

    async def arrives(self, host: str, count: int = 100) -> None:
        wanted = self.read(host) + count
        await until_async(lambda: self.read(host) >= wanted, f"{count} packets arrive at {host}")

    async def lost(self, sent: int, since: int) -> list[int]:
        """Of ``sent``, after number ``since``; none came twice."""
        with suppress(AssertionError):
            await until_async(
                lambda: (
                    (self.read("a"), self.read("b")) and sent - 1 in (self.got["a"][-1:] + self.got["b"][-1:])
                ),
                "the last arrives",
                3,
            )
        every = self.got["a"] + self.got["b"]
        assert len(every) == len(set(every)), "some came twice"
        return sorted(set(range(since, sent)) - set(every))

    async def leads_to(self, controller: Controller, host: str) -> None:
        """From every switch's every port of the edge, by a shortest way, as the tables say that are read back."""
        tables, topology = {}, controller.core.topology()
        for name, one in self.fabric.switches.items():
            switch = await Switch.connect(one.address)
            tables[name] = [stats.flow for stats in await switch.flows()]
            switch.close()
        place = controller.core.places.of_host(host)
        assert place is not None
        for start in controller.core.answers.edges():
            if start == place:
                continue
            for packet in (
                {Field.ETH_DST: VM},
                {Field.ETH_DST: GATEWAY, Field.ETH_TYPE: b"\x08\x00", Field.IPV4_DST: VM_IP.packed},
            ):
                walk = trace.walk(tables, topology, start, packet)
                assert walk.end == place, (start, walk)
                assert len(walk.path) == topology.distances(start.switch)[place.switch] + 1

    def dump(self, cookies: bool = False) -> dict[str, list[str]]:
        found = {name: one.dump() for name, one in self.fabric.switches.items()}
        if cookies:
            return found
        return {
            name: sorted(re.sub("cookie=0x[0-9a-f]+, ", "", line) for line in some)
            for name, some in found.items()
        }


def raw(host: Host) -> socket.socket:
    with host:
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        found.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER, 64 << 20)
        found.bind(("eth0", 3))
        found.setblocking(False)
        return found


GATEWAY = bytes.fromhex("02766d677701")


async def until_async(condition: Callable[[], Any], what: str, limit_s: float = 10) -> None:
    await asyncio.to_thread(until, condition, limit_s, what)


async def linked(controller: Controller, links: int = 4) -> None:
    async with asyncio.timeout(30):
        while (
            len(controller.core.links.up()) < links
            or len(controller.core.members) < 4
            or controller.core.dirty
        ):
            await asyncio.sleep(0.05)
        await controller.quiet.wait()


def over_the_fabric(body: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        await body(Scene())

    asyncio.run(run())
