"""The lab of the rerouting bench: client - s1 - (s2 or s3) - s4 - server, every switch an Open vSwitch (Pisa 2010, figure 4b)."""

from __future__ import annotations

import asyncio
import pathlib
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from typing import Final

from controller_bridge.address import Address
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import EXACTLY, Change, Command, Flow
from controller_bridge.openflow.match import Match
from controller_bridge.paths import Hop, Path
from controller_bridge.switch import Switch
from vmnet.errors import WaitTimeoutError
from vmnet.lab import Lab, lab_up

SWITCHES: Final = ("s1", "s2", "s3", "s4")
BRIDGE: Final = "switch"
"""What the lab calls a switch's bridge."""
WAYS: Final = ("s2", "s3")
COOKIE: Final = 0x766D6265
PRIORITY: Final = 40_000
SERVER: Final = "10.3.0.2"
_OTHERS: Final = int(IPv4Address("10.128.0.0"))
_IPV4: Final = 0x0800
_TIMESTAMPNS, _ALL = 35, 3


def destination(number: int) -> IPv4Address:
    """Of the flow with that number; that of number 0 is the server."""
    return IPv4Address(SERVER) if number == 0 else IPv4Address(_OTHERS + number)


class Stage:
    """``way``: the switch that the flows go by now, "s2" or "s3"."""

    def __init__(self, lab: Lab, switches: dict[str, Switch], ports: dict[tuple[str, str], int]) -> None:
        self.lab, self.switches, self.ports = lab, switches, ports
        self.way = WAYS[0]
        self.matches: list[Match] = []

    @property
    def other_way(self) -> str:
        return WAYS[1 - WAYS.index(self.way)]

    def socket_of(self, switch: str) -> str:
        return str(management_socket(self.lab, switch))

    def path(self, way: str) -> Path:
        names = ("client", "s1", way, "s4", "server")
        return tuple(
            Hop(name, self.ports[name, before], self.ports[name, after])
            for before, name, after in zip(names, names[1:-1], names[2:], strict=False)
        )

    def entry(self, number: int, hop: Hop) -> Flow:
        return Flow(PRIORITY, self.matches[number], action.apply([action.output(hop.out_port)]), COOKIE)

    async def fill(self, flows: int) -> None:
        """So many flows go by s2, and no others."""
        self.matches = [Match.of(eth_type=_IPV4, ipv4_dst=destination(number)) for number in range(flows)]
        self.way = WAYS[0]
        everything = Change(Command.DELETE, Flow(0, Match(), b"", COOKIE, 0xFF), EXACTLY)
        for name in SWITCHES:
            await self.switches[name].change([everything])
        for hop in self.path(self.way):
            await self.switches[hop.switch].commit(
                Change(Command.ADD, self.entry(number, hop)) for number in range(flows)
            )


class FirstPacket:
    """Sees the first packet for the server that comes to ``switch`` from s1; ns of the Unix clock, by the kernel's stamp."""

    def __init__(self, lab: Lab, switch: str) -> None:
        self._socket = lab.node(switch).call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
        self._socket.bind(("s1", _IPV4))
        self._socket.setblocking(False)

    def __enter__(self) -> FirstPacket:
        self._drain()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _drain(self) -> None:
        while self._read() is not None:
            pass

    def _read(self) -> int | None:
        """When the next one came; None if there is none."""
        try:
            frame, others, _flags, _address = self._socket.recvmsg(64, 64)
        except BlockingIOError:
            return None
        stamp = next(
            data for level, kind, data in others if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPNS)
        )
        seconds, nanoseconds = struct.unpack("qq", stamp)
        ours = frame[30:34] == IPv4Address(SERVER).packed
        return seconds * 1_000_000_000 + nanoseconds if ours else 0

    def after(self, limit_s: float) -> int:
        """WaitTimeoutError if none comes."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if found := self._read():
                return found
            time.sleep(0.001)
        raise WaitTimeoutError(f"no packet took the new path within {limit_s:g} s")


def management_socket(lab: Lab, switch: str) -> pathlib.Path:
    """Where a switch of the lab listens for OpenFlow."""
    return lab.node(switch).run_dir / "openvswitch" / f"{BRIDGE}.mgmt"


async def _connected(lab: Lab) -> dict[str, Switch]:
    return {
        name: await Switch.connect(Address("unix", str(management_socket(lab, name)))) for name in SWITCHES
    }


async def _ports(switches: dict[str, Switch]) -> dict[tuple[str, str], int]:
    """By switch and port's name, which is that of its neighbour."""
    return {(name, port.name): port.number for name, one in switches.items() for port in await one.ports()}


async def _await_controller(lab: Lab, switches: dict[str, Switch]) -> None:
    """Each switch looks for a controller in its own namespace from now on. (Open vSwitch forgets its flows when that changes.)"""
    for name, one in switches.items():
        known = [Change(Command.ADD, stats.flow) for stats in await one.flows()]
        controller = ["set", "controller", BRIDGE, "connection_mode=out-of-band", "max_backoff=1000"]
        asked = ["set-controller", BRIDGE, "tcp:127.0.0.1:6653", "--", *controller]
        lab.node(name).run(["ovs-vsctl", "--timeout=10", *asked])
        await one.change(known)


@contextmanager
def stage(name: str, runner: asyncio.Runner, controlled: bool) -> Iterator[Stage]:
    """A lab of its own; ``controlled``: its switches look for a controller. LabError if it does not come up."""
    with ExitStack() as stack:
        lab = stack.enter_context(lab_up("pisa-openflow", name))
        switches = runner.run(_connected(lab))
        for one in switches.values():
            stack.callback(one.close)
        if controlled:
            runner.run(_await_controller(lab, switches))
        yield Stage(lab, switches, runner.run(_ports(switches)))
