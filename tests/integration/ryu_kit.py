"""Ryu's ofctl_rest over real switches: client - s1 - (s2 - host-a, s3 - host-b), with entries as its user would have given them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dataplane_kit import GUEST, Host, Packets, die_with_parent, until
from ovs_kit import PROTOCOLS, Fabric, folder

from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.rest import RestRerouter, open_rest
from controller_bridge.rerouters.web import fetch
from vmnet.errors import UnavailableError

LINKS = (("s1", "s2"), ("s1", "s3"))
ENDS = {"client": "s1", "host-a": "s2", "host-b": "s3"}
MAC = GUEST.hex(":")
MOVE = Move("m1", "blue", "a", "b", (MAC,))
BACK = Move("m2", "blue", "b", "a", (MAC,))
URL = "http://127.0.0.1:8080"
_LIMIT_S = 30.0
_PROGRAM = """\
import eventlet.wsgi
eventlet.wsgi.ALREADY_HANDLED = object()  # Ryu 4.34 imports it, for WebSockets; eventlet has none since 0.30.3
from ryu.cmd.manager import main
main()
"""


class RyuFabric:
    """``ways``: host -> datapath id -> port. Every switch has one entry for the VM, towards host a."""

    def __init__(self, programs: Path, protocols: str = PROTOCOLS) -> None:
        self.fabric = Fabric(LINKS, ENDS, protocols)
        self.host = Host()
        self._programs = programs
        port = self.fabric.ports
        self.ways = {
            "a": {"1": port["s1", "s2"], "2": port["s2", "host-a"], "3": port["s3", "s1"]},
            "b": {"1": port["s1", "s3"], "2": port["s2", "s1"], "3": port["s3", "host-b"]},
        }
        self.start()
        self.fabric.controlled_from(self.host)
        self.senders = {name: self._sender(name) for name in ENDS}
        self.connected()
        for datapath, out in self.ways["a"].items():
            self.entry(int(datapath), out)

    def _sender(self, end: str) -> Packets:
        with self.fabric.ends[end]:
            return Packets("eth0")

    def start(self) -> None:
        with self.host:
            self.process = subprocess.Popen(
                [self._programs / "python", "-c", _PROGRAM, "--ofp-tcp-listen-port=6653", "--wsapi-host=127.0.0.1",
                 "ryu.app.ofctl_rest"],
                cwd=folder(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/bin", "HOME": folder()}, preexec_fn=die_with_parent,
            )  # fmt: skip

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def connected(self) -> None:
        until(lambda: self.ask("/stats/switches") == [1, 2, 3], _LIMIT_S, "Ryu has its switches")

    def ask(self, path: str, body: Any = None) -> Any:
        """None before it answers."""

        async def asked() -> Any:
            try:
                said = await fetch(URL + path, body)
            except UnavailableError:
                return None
            return sorted(json.loads(said)) if body is None else said

        return self.run(asked)

    def entry(self, datapath: int, out: int, **more: Any) -> None:
        actions = [{"type": "OUTPUT", "port": out}]
        body = {
            "dpid": datapath,
            "priority": 100,
            "cookie": 7,
            "match": {"eth_dst": MAC},
            "actions": actions,
        } | more
        body["instructions"] = [{"type": "APPLY_ACTIONS", "actions": body["actions"]}]
        self.ask("/stats/flowentry/add", body)

    def run(self, body: Callable[[], Awaitable[Any]]) -> Any:
        with self.host:
            return asyncio.run(_awaited(body))

    def rerouter(self, **more: Any) -> RestRerouter:
        return open_rest({"url": URL, "hosts": self.ways} | more)

    def do(self, *steps: str, move: Move = MOVE, **more: Any) -> None:
        """Each by a rerouter of its own, as after a restart of the daemon."""
        for step in steps:
            self.run(lambda: getattr(self.rerouter(**more), step)(move))  # noqa: B023

    def tables(self) -> dict[str, list[str]]:
        return {name: ovs.dump() for name, ovs in self.fabric.switches.items()}


async def _awaited(body: Callable[[], Awaitable[Any]]) -> Any:
    return await body()
