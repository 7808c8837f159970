"""A VM's addresses lead from one host to another over real Open vSwitches: every packet finds one of the two."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
from dataplane_kit import Host, Traffic, isolated, until, veth
from ovs_kit import Fabric

from controller_bridge import fabric as fabric_file
from controller_bridge.rerouters.base import Move, open_rerouter
from controller_bridge.rerouters.openvswitch import OpenVSwitchRerouter
from vmnet.errors import ConfigError, RefusedError, UnavailableError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
VM, CLIENT = "52:54:00:00:00:01", bytes.fromhex("020000000001")
ETHERTYPE = 0x88B5  # for experiments (IEEE 802)
RATE = 1000
_RECEIVE_BUFFER = 33  # SO_RCVBUFFORCE
MOVE = Move("m1", "uuid", "a", "b", (VM,))
LINKS = (("s1", "s2"), ("s1", "s3"), ("s2", "s4"), ("s3", "s4"))
WAYS = {"s1": "s2", "s2": "a", "s3": "s1", "s4": "s2"}
"""Where each switch sends what is for the VM while that is on host a; s3 by a detour."""


class Scene:
    """Host a is at s2, host b at s3; the client at s1 sends numbered packets to the VM."""

    def __init__(self) -> None:
        self.fabric = Fabric()
        self.hosts = {"a": Host(), "b": Host()}
        for name, switch in (("a", "s2"), ("b", "s3")):
            veth(self.hosts[name], "eth0", self.fabric.switches[switch].host, f"host-{name}")
            self.fabric.ports[switch, name] = self.fabric.switches[switch].add_port(f"host-{name}")
        for switch, way in WAYS.items():
            out = self.fabric.ports[switch, way]
            self.fabric.switches[switch].ofctl(
                "add-flow", f"cookie=8,priority=100,dl_dst={VM},actions=output:{out}"
            )
            self.fabric.switches[switch].ofctl(
                "add-flow", "cookie=3,priority=9,dl_dst=02:00:00:00:00:09,actions=drop"
            )
        self.got: dict[str, list[int]] = {"a": [], "b": []}
        self._in = {name: self._listen(host) for name, host in self.hosts.items()}
        with self.fabric.ends["client"]:
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._out.bind(("eth0", 0))

    def _listen(self, host: Host) -> socket.socket:
        with host:
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
            found.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER, 64 << 20)
            found.bind(("eth0", ETHERTYPE))
            found.setblocking(False)
        return found

    def settings(self) -> dict[str, object]:
        return {
            "links": [f"{one}:{other} {other}:{one}" for one, other in LINKS],
            "switches": {name: str(one.address) for name, one in self.fabric.switches.items()},
            "hosts": {"a": "s2:host-a", "b": "s3:host-b"},
        }

    def rerouter(self) -> OpenVSwitchRerouter:
        return OpenVSwitchRerouter(fabric_file.parse(json.loads(json.dumps(self.settings()))))

    def send(self) -> Traffic:
        head = bytes.fromhex(VM.replace(":", "")) + CLIENT + struct.pack("!H", ETHERTYPE)
        return Traffic(
            self._out.send, RATE, lambda number: [(head + struct.pack("!I", number)).ljust(60, b"\0")]
        )  # type: ignore[arg-type]

    def read(self, host: str) -> int:
        while True:
            try:
                self.got[host].append(struct.unpack_from("!I", self._in[host].recv(100), 14)[0])
            except BlockingIOError:
                return len(self.got[host])

    async def arrives(self, host: str) -> None:
        wanted = self.read(host) + 100
        await asyncio.to_thread(until, lambda: self.read(host) >= wanted, 5, f"100 packets arrive at {host}")

    async def all_arrived(self, sent: int) -> None:
        """Each once, at one of the two."""
        with contextlib.suppress(AssertionError):
            await asyncio.to_thread(until, lambda: self.read("a") + self.read("b") >= sent, 5, "all arrive")
        missing = sorted(set(range(sent)) - {*self.got["a"], *self.got["b"]})
        assert not missing, (
            f"{len(missing)} of {sent} are lost: {missing[:20]}; {[len(one) for one in self.got.values()]} arrived"
        )
        assert len(self.got["a"]) + len(self.got["b"]) == sent

    def flows(self) -> dict[str, list[str]]:
        """But for guards."""
        return {
            name: [line for line in one.dump() if "in_port" not in line]
            for name, one in self.fabric.switches.items()
        }

    def guarded(self) -> list[str]:
        return [line for one in self.fabric.switches.values() for line in one.dump() if "in_port" in line]


def over_the_fabric(body: Callable[[Scene, OpenVSwitchRerouter], Awaitable[None]]) -> None:
    async def run() -> None:
        scene = Scene()
        rerouter = scene.rerouter()
        try:
            await body(scene, rerouter)
        finally:
            await rerouter.close()

    asyncio.run(run())


@isolated()
def test_every_packet_finds_the_old_host_or_the_new_one() -> None:
    async def body(scene: Scene, rerouter: OpenVSwitchRerouter) -> None:
        before = scene.flows()
        running = scene.send()
        await scene.arrives("a")
        await rerouter.prepare(MOVE)
        assert scene.guarded() and scene.flows() == before
        await rerouter.cut_over(MOVE)
        await scene.arrives("b")
        await rerouter.finish(MOVE)
        assert not scene.guarded()
        await scene.all_arrived(running.stop())
        assert scene.got["a"] == sorted(scene.got["a"])
        assert scene.got["b"] == sorted(scene.got["b"])
        assert scene.got["a"][-1] < scene.got["b"][0]
        after = scene.flows()
        assert all(sum("cookie=0x3" in line for line in some) == 1 for some in after.values())

    over_the_fabric(body)


@isolated()
def test_back_again_by_one_that_knows_nothing_of_it() -> None:
    async def body(scene: Scene, rerouter: OpenVSwitchRerouter) -> None:
        running = scene.send()
        await scene.arrives("a")
        await rerouter.cut_over(MOVE)  # without having been prepared
        await rerouter.cut_over(MOVE)  # nothing is done twice
        await scene.arrives("b")
        await rerouter.close()
        other = scene.rerouter()
        with pytest.raises(RefusedError, match="not all flows of"):
            await other.finish(Move("m1", "uuid", "b", "a", (VM,)))
        await other.roll_back(MOVE)
        await scene.arrives("a")
        await other.close()
        assert not scene.guarded()
        await scene.all_arrived(running.stop())

    over_the_fabric(body)


@isolated()
def test_what_cannot_be_changes_nothing() -> None:
    async def body(scene: Scene, rerouter: OpenVSwitchRerouter) -> None:
        before = scene.flows()
        with pytest.raises(RefusedError, match="no switch has flows to 52:54:00:00:00:99"):
            await rerouter.prepare(Move("m2", "uuid", "a", "b", ("52:54:00:00:00:99",)))
        with pytest.raises(RefusedError, match="where host 'c' is"):
            await rerouter.prepare(Move("m3", "uuid", "a", "c", (VM,)))
        scene.fabric.switches["s3"].ofctl("add-flow", f"cookie=8,in_port=1,dl_dst={VM},actions=output:2")
        with pytest.raises(RefusedError, match="an entry of s3 goes by the port"):
            await rerouter.prepare(MOVE)
        scene.fabric.switches["s3"].ofctl("del-flows", f"in_port=1,dl_dst={VM}")
        assert scene.flows() == before
        scene.fabric.switches["s4"].kill()
        with pytest.raises(UnavailableError, match="s4: no switch at unix:"):
            await rerouter.prepare(MOVE)
        scene.fabric.switches["s4"].start()

    over_the_fabric(body)


def test_it_is_found_by_its_name(tmp_path: os.PathLike[str]) -> None:
    assert isinstance(
        open_rerouter("openvswitch", {"switches": {"s1": "tcp:192.0.2.1"}}), OpenVSwitchRerouter
    )
    with pytest.raises(ConfigError, match=r"no rerouter 'magic'; give one of .*openvswitch"):
        open_rerouter("magic", {})
    with pytest.raises(ConfigError, match="cannot read the fabric"):
        open_rerouter("openvswitch", {"file": f"{os.fspath(tmp_path)}/none.toml"})
    with pytest.raises(ConfigError, match="nothing else beside it"):
        open_rerouter("openvswitch", {"file": "/x", "switches": {}})
