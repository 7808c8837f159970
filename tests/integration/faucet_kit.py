"""A real Faucet over real switches: client - s1 - (s2 - host-a, s3 - host-b), links between switches tagged. It ends with the test."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dataplane_kit import BROADCAST, CLIENT, GUEST, Host, Packets, die_with_parent, numbers, until
from ovs_kit import Fabric, folder

from controller_bridge.rerouters import faucet_file
from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.faucet import FaucetRerouter, open_faucet
from controller_bridge.rerouters.faucet_metrics import NAMES, Running, running
from controller_bridge.rerouters.web import fetch
from vmnet.errors import UnavailableError

LINKS = (("s1", "s2"), ("s1", "s3"))
ENDS = {"client": "s1", "host-a": "s2", "host-b": "s3"}
MAC = GUEST.hex(":")
MOVE = Move("m1", "blue", "a", "b", (MAC,))
BACK = Move("m2", "blue", "b", "a", (MAC,))
_LIMIT_S = 30.0
CONFIG = """\
# The fabric's own configuration: not vmnet's to rewrite.
include: [vmnet.yaml]   # by vmnet
vlans:
    office: {vid: 100}
acls:
    allowed:
        - rule: {actions: {allow: 1}}
dps:
    s1:
        dp_id: 0x1
        hardware: "Open vSwitch"
        interfaces:
            1: {name: to-s2, tagged_vlans: [office], acls_in: [vmnet-s1-1, allowed]}
            2: {name: to-s3, tagged_vlans: [office], acls_in: [vmnet-s1-2, allowed]}
            3: {name: client, native_vlan: office, acls_in: [vmnet-s1-3, allowed]}
    s2:
        dp_id: 0x2
        hardware: "Open vSwitch"
        interfaces:
            1: {name: up, tagged_vlans: [office], acls_in: [vmnet-s2-1, allowed]}
            2: {name: host-a, native_vlan: office, acls_in: [vmnet-s2-2, allowed]}
    s3:
        dp_id: 0x3
        hardware: "Open vSwitch"
        interfaces:
            1: {name: up, tagged_vlans: [office], acls_in: [vmnet-s3-1, allowed]}
            2: {name: host-b, native_vlan: office, acls_in: [vmnet-s3-2, allowed]}
"""


class Ear:
    """All that comes to an end's device, kept by the kernel until it is read."""

    def __init__(self, end: Host) -> None:
        with end:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B6))
            self._socket.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)  # SO_RCVBUFFORCE
            self._socket.bind(("eth0", 0x88B6))
            self._socket.setblocking(False)

    def heard(self, stream: int = 0) -> list[int]:
        frames = []
        while True:
            try:
                frames.append(self._socket.recv(2048))
            except BlockingIOError:
                return numbers([one for one in frames if one[6:12] == CLIENT], stream)


class FaucetFabric:
    def __init__(self, programs: Path, reread: bool = False) -> None:
        self.fabric = Fabric(LINKS, ENDS)
        self.host = Host()
        self.folder = Path(tempfile.mkdtemp(prefix="faucet-", dir=folder()))
        self.config, self.file = self.folder / "faucet.yaml", self.folder / "vmnet.yaml"
        self.config.write_text(CONFIG)
        self.file.write_text(faucet_file.empty(self.config, "office"))
        self._programs, self._reread = programs, reread
        self.start()
        self.fabric.controlled_from(self.host)
        self.senders = {name: self._sender(name) for name in ENDS}
        self.connected()
        self.announce("host-a")

    def _sender(self, end: str) -> Packets:
        with self.fabric.ends[end]:
            return Packets("eth0")

    def start(self) -> None:
        with self.host:
            self.process = subprocess.Popen(
                [self._programs / "python", self._programs / "osken-manager", "--ofp-tcp-listen-port=6653",
                 f"--pid-file={self.folder}/pid", "faucet.faucet"],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=(self.folder / "out").open("w"), stderr=subprocess.STDOUT,
                env={"PATH": f"{self._programs}:/usr/bin:/bin", "FAUCET_CONFIG": str(self.config), "HOME": str(self.folder),
                     "FAUCET_LOG": str(self.folder / "log"), "FAUCET_EXCEPTION_LOG": str(self.folder / "exceptions"),
                     "FAUCET_PROMETHEUS_ADDR": "127.0.0.1", "FAUCET_CONFIG_STAT_RELOAD": str(int(self._reread))},
                preexec_fn=die_with_parent,
            )  # fmt: skip

    def run(self, body: Callable[[], Awaitable[Any]]) -> Any:
        """On an event loop in Faucet's own host, as a daemon beside it would be."""
        with self.host:
            return asyncio.run(_awaited(body))

    def running(self) -> Any:
        """Before it answers: that it has no switches."""

        async def ask() -> Running:
            names = "&".join(f"name[]={one}" for one in NAMES)
            try:
                return running(await fetch(f"http://127.0.0.1:9302/?{names}", limit_s=5))
            except UnavailableError:
                return Running({}, "", False, 0, 0)

        return self.run(ask)

    def settings(self, **more: Any) -> dict[str, Any]:
        known = {
            "config": str(self.config),
            "file": str(self.file),
            "metrics": "http://127.0.0.1:9302",
            "check": str(self._programs / "check_faucet_config"),
            "vlan": "office",
            "hosts": {
                "a": {"s1": "to-s2", "s2": "host-a", "s3": "up"},
                "b": {"s1": "to-s3", "s2": "up", "s3": "host-b"},
            },
            "switches": {name: str(ovs.address) for name, ovs in self.fabric.switches.items()},
        }
        if not self._reread:
            known["pid_file"] = str(self.folder / "pid")
        return known | more

    def rerouter(self, **more: Any) -> FaucetRerouter:
        return open_faucet(self.settings(**more))

    def do(self, *steps: str, move: Move = MOVE, **more: Any) -> None:
        """Each by a rerouter of its own, as after a restart of the daemon."""
        for step in steps:
            self.run(lambda: self._step(step, move, more))  # noqa: B023

    async def _step(self, step: str, move: Move, more: dict[str, Any]) -> None:
        rerouter = self.rerouter(**more)
        try:
            await getattr(rerouter, step)(move)
        finally:
            await rerouter.close()

    def announce(self, end: str) -> None:
        """As a VM does that has just begun to run, several times: until Faucet has learned where it is."""
        ports = {"host-a": {"s1": 1, "s2": 2, "s3": 1}, "host-b": {"s1": 2, "s2": 1, "s3": 2}}[end]
        spoken_s = 0.0

        def learned() -> bool:
            nonlocal spoken_s
            if time.monotonic() - spoken_s > 0.2:
                spoken_s = time.monotonic()
                self.senders[end].send((BROADCAST + GUEST + b"\x88\xb5").ljust(60, b"\0"))
            known = self.running().learned
            return all(known.get((datapath, MAC)) == port for datapath, port in ports.items())

        until(learned, _LIMIT_S, f"Faucet has learned the VM at {end}")

    def tables(self) -> dict[str, list[str]]:
        """What vmnet may have changed: the switches' first tables."""
        return {
            name: [line for line in ovs.dump() if "table=" not in line]
            for name, ovs in self.fabric.switches.items()
        }

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def connected(self) -> None:
        until(lambda: self.running().up == {"s1", "s2", "s3"}, _LIMIT_S, "Faucet has its switches")


async def _awaited(body: Callable[[], Awaitable[Any]]) -> Any:
    return await body()
