"""A VM moves between hosts over real Open vSwitches that our own controller steers, as its daemon asks for it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dataplane_kit import die_with_parent, ip, isolated
from led_scene import (
    BACK,
    CLIENT,
    CLIENT_IP,
    ETHERTYPE,
    HOSTS,
    MOVE,
    VM,
    VM_IP,
    Scene,
    linked,
    over_the_fabric,
    until_async,
)
from ovs_kit import folder

from controller_bridge.address import Address
from controller_bridge.api.client import ControllerClient, way
from controller_bridge.api.desk import Desk
from controller_bridge.core import neighbours
from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.vmnet import open_vmnet
from vmnet import pki
from vmnet.config.model import Tls
from vmnet.errors import ConfigError, RefusedError, UnavailableError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]


@isolated(120)
def test_a_vm_goes_there_and_back_and_every_packet_finds_it() -> None:
    async def body(scene: Scene) -> None:
        running = scene.send()  # before there are connections that a child could hold
        async with scene.controller() as controller:
            rerouter = scene.rerouter()
            await linked(controller)
            await scene.speak(controller)
            await scene.arrives("a")
            before, since = scene.dump(), scene.got["a"][-1]
            await rerouter.prepare(MOVE)
            unguarded = {
                name: [line for line in some if "in_port" not in line] for name, some in scene.dump().items()
            }
            assert unguarded == before, "prepare leads packets elsewhere"
            bound = scene.dump(cookies=True)
            await rerouter.cut_over(MOVE)
            await scene.leads_to(controller, "b")
            await scene.arrives("b")
            await rerouter.finish(MOVE)
            await scene.leads_to(controller, "b")
            for step in (
                rerouter.prepare,
                rerouter.cut_over,
                rerouter.cut_over,
                rerouter.finish,
                rerouter.finish,
            ):
                await step(BACK)
            await scene.leads_to(controller, "a")
            await scene.arrives("a")
            await until_async(lambda: not controller.core.hosts.left, "nothing is late any more", 30)
            await controller.quiet.wait()
            assert scene.dump() == before
            assert scene.dump(cookies=True) != bound
            await rerouter.close()
            assert await scene.lost(running.stop(), since) == [], (
                since,
                scene.got["b"][0],
                scene.got["b"][-1],
            )

    over_the_fabric(body)


class Daemon:
    """vmnet-controllerd itself, in a process that is killed."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._file = scene, Path(folder()) / "controller.toml"
        switches = "".join(
            f'{name} = "{number:016x}"\n' for number, name in enumerate(scene.fabric.switches, 1)
        )
        hosts = "".join(f'{name} = "{end}"\n' for name, end in HOSTS.items())
        listen = json.dumps([f"unix:{one}" for one in scene.sockets])
        self._file.write_text(
            f'listen = {listen}\ngateways = ["10.1.0.254"]\nkey = "{folder()}/lldp.key"\n[switches]\n{switches}'
            f'[hosts]\n{hosts}[api]\nlisten = ["unix:{scene.api}"]\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def cli(self, *words: str) -> str:
        argv = [
            sys.executable,
            "-m",
            "vmnet.cli.main",
            "controller",
            *words,
            "--controller",
            f"unix:{self._scene.api}",
        ]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout

    async def restart(self) -> None:
        """Killed, and another one has found switches and links."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "controller_bridge.main", "--config", self._file],
            preexec_fn=die_with_parent,
        )
        client = ControllerClient(way(f"unix:{self._scene.api}"))
        async with asyncio.timeout(40):
            while True:
                with suppress(UnavailableError):
                    found = await client.ask("status", {}, 5)
                    if len(found["links"]) == 4 and all(
                        one["connected"] for one in found["switches"].values()
                    ):
                        break
                await asyncio.sleep(0.1)
        await client.close()

    def station(self) -> dict[str, Any]:
        found = json.loads(self.cli("status", "--json"))
        return next(one for one in found["stations"] if one["mac"] == VM.hex(":"))


@isolated(240)
def test_the_daemon_is_killed_between_all_steps_under_traffic() -> None:
    """And the VM's place, and who may lead it, are known to the next one."""

    async def body(scene: Scene) -> None:
        running, daemon, rerouter = scene.send(), Daemon(scene), scene.rerouter()
        await daemon.restart()
        scene.wires["a"].send(neighbours.question(VM_IP, VM, VM_IP))
        scene.wires["client"].send(neighbours.question(CLIENT_IP, CLIENT, CLIENT_IP))
        await scene.arrives("a")
        await rerouter.prepare(
            MOVE
        )  # and with it the VM's entries: until then its packets went by the controller
        await scene.arrives("a")
        since = scene.got["a"][-1]
        moved: list[int] = []
        for step, host, place in (
            (rerouter.cut_over, "b", "s3:host-b"),
            (rerouter.roll_back, "a", "s2:host-a"),
            (rerouter.cut_over, "b", "s3:host-b"),
            (rerouter.finish, "b", "s3:host-b"),
        ):
            await daemon.restart()
            await step(MOVE)
            await scene.arrives(host)
            moved.append(scene.got[host][-100])
            assert daemon.station()["place"] == place
        await daemon.restart()
        await rerouter.finish(MOVE)  # again, of one that has never heard of it
        assert daemon.station() == {
            "mac": VM.hex(":"),
            "place": "s3:host-b",
            "addresses": [str(VM_IP)],
            "bound": True,
            "move": None,
            "partner": None,
        }
        lost = await scene.lost(running.stop(), since)
        assert not lost, f"{len(lost)} lost, {lost[0]} to {lost[-1]}; moved at {moved}, from {since}"
        shown = daemon.cli("status")
        assert f"{VM.hex(':')}  s3:host-b  yes    {VM_IP}" in shown
        assert "0000000000000003" in shown
        assert "released: none" in daemon.cli("release", CLIENT.hex(":"))
        assert f"released: {VM.hex(':')}" in daemon.cli("release", VM.hex(":"))
        assert not daemon.station()["bound"]
        await rerouter.close()

    over_the_fabric(body)


@isolated(120)
def test_who_may_lead_a_vm_is_known_to_a_controller_that_is_started_anew() -> None:
    async def body(scene: Scene) -> None:
        ask = {"id": "m1", "source": "a", "destination": "b", "macs": [VM.hex(":")]}
        async with scene.controller() as controller:
            await linked(controller)
            await scene.speak(controller)
            await Desk(controller).answer("a", "prepare", ask)
            await Desk(controller).answer("b", "cut_over", ask)
        async with scene.controller() as controller:
            await linked(controller)
            with pytest.raises(RefusedError, match="c may not move what goes from a to b"):
                await Desk(controller).answer("c", "roll_back", ask)
            with pytest.raises(RefusedError, match=r"is not c's to move: it is at b"):
                await Desk(controller).answer("c", "roll_back", ask | {"source": "c"})
            await Desk(controller).answer("a", "roll_back", ask)
            await scene.leads_to(controller, "a")
            await Desk(controller).answer("a", "cut_over", ask)
            await Desk(controller).answer("b", "finish", ask)
        async with scene.controller() as controller:
            await linked(controller)
            with pytest.raises(RefusedError, match=r"is not a's to move: it is at b"):
                await Desk(controller).answer("a", "roll_back", ask)
            await scene.leads_to(controller, "b")

    over_the_fabric(body)


@isolated(120)
def test_what_is_forged_of_a_bound_vm_changes_no_table_and_reaches_nobody() -> None:
    async def body(scene: Scene) -> None:
        async with scene.controller() as controller:
            rerouter = scene.rerouter()
            await linked(controller)
            await scene.speak(controller)
            for step in (rerouter.prepare, rerouter.cut_over, rerouter.finish):
                await step(MOVE)
            await until_async(lambda: not controller.core.hosts.left, "nothing is late any more", 30)
            await controller.quiet.wait()
            before, refused = scene.dump(cookies=True), controller.core.counts.refused
            forger, rounds = scene.wires["client"], 10
            for number in range(rounds):
                forger.send(neighbours.question(VM_IP, VM, VM_IP))  # gratuitous, as it does when it resumes
                forger.send(neighbours.answer(VM_IP, VM, b"\xff" * 6, VM_IP))
                forger.send(
                    neighbours.answer(VM_IP, CLIENT, b"\xff" * 6, VM_IP)
                )  # its address, another's MAC
                forger.send(b"\xff" * 6 + VM + struct.pack("!H", ETHERTYPE) + bytes(46))
                forger.send(
                    bytes.fromhex("02000000009f") + VM + struct.pack("!H", ETHERTYPE) + bytes([number] * 46)
                )
                await asyncio.sleep(0.05)
            await until_async(
                lambda: controller.core.counts.refused >= refused + 5 * rounds,
                "they were all seen, and refused",
            )
            await asyncio.sleep(1.0)  # an old place that is asked has 0.3 s
            await controller.quiet.wait()
            assert scene.dump(cookies=True) == before
            assert controller.core.hosts.owner(VM_IP) == VM
            await scene.leads_to(controller, "b")
            await rerouter.close()

    over_the_fabric(body)


@isolated(120)
def test_over_tls_each_host_moves_its_own() -> None:
    async def body(scene: Scene) -> None:
        there = Path(folder()) / "pki"
        pki.init(there)
        for name in ("controller", "a", "b", "c", "stranger"):
            pki.host(name, there)

        def settings(name: str) -> dict[str, Any]:
            files = {"ca": "ca.pem", "certificate": "host.pem", "key": "host.key"}
            return {
                "controller": "ssl:127.0.0.1:6654",
                **{key: f"{there}/{name}/{one}" for key, one in files.items()},
            }

        own = there / "controller"
        tls = Tls(own / "ca.pem", own / "host.pem", own / "host.key")
        ip("link", "set", "lo", "up")
        async with scene.controller((Address("ssl", "127.0.0.1", 6654),), tls) as controller:
            await linked(controller)
            await scene.speak(controller)
            before, bare = scene.dump(cookies=True), scene.dump()
            by = {name: open_vmnet(settings(name)) for name in ("a", "b", "c", "stranger")}
            with pytest.raises(
                UnavailableError, match="refused us: a certificate of stranger, who is no host"
            ):
                await by["stranger"].prepare(MOVE)
            with pytest.raises(RefusedError, match=r"not b's to move: it is at a"):
                await by["b"].cut_over(MOVE)
            with pytest.raises(RefusedError, match="c may not move what goes from a to b"):
                await by["c"].prepare(MOVE)
            with pytest.raises(RefusedError, match=r"not c's to move: it is at a"):
                await by["c"].cut_over(Move("m9", "uuid", "a", "c", MOVE.macs))
            other = open_vmnet(settings("a") | {"name": "b"})
            with pytest.raises(UnavailableError, match="'b' showed a certificate of controller"):
                await other.prepare(MOVE)
            assert scene.dump(cookies=True) == before
            await by["a"].prepare(MOVE)
            await by["b"].cut_over(MOVE)  # the destination, now that the source has named it
            await scene.leads_to(controller, "b")
            await by["a"].roll_back(MOVE)
            await scene.leads_to(controller, "a")
            with pytest.raises(RefusedError, match=r"not b's to move: it is at a"):
                await by["b"].cut_over(MOVE)
            await until_async(lambda: not controller.core.hosts.left, "nothing is late any more", 30)
            await controller.quiet.wait()
            assert scene.dump() == bare, "roll_back leaves something"
            for one in (*by.values(), other):
                await one.close()

    over_the_fabric(body)


@isolated(120)
def test_a_switch_that_is_away_is_told_when_it_comes_back() -> None:
    async def body(scene: Scene) -> None:
        async with scene.controller() as controller:
            desk, rerouter = Desk(controller), scene.rerouter()
            await linked(controller)
            await scene.speak(controller)
            await rerouter.prepare(MOVE)
            scene.fabric.switches["s4"].vsctl("del-controller", "s4")
            await until_async(lambda: "s4" not in controller.switches, "s4 has gone")
            ask = {"id": "m1", "source": "a", "destination": "b", "macs": [VM.hex(":")]}
            assert (await desk.answer(None, "cut_over", ask))["missing"] == ["s4"]
            scene.fabric.switches["s3"].vsctl("del-controller", "s3")
            await until_async(lambda: "s3" not in controller.switches, "s3 has gone")
            await rerouter.roll_back(MOVE)
            with pytest.raises(UnavailableError, match="switch s3, where b is, is not connected"):
                await rerouter.cut_over(MOVE)
            for name in ("s3", "s4"):
                one = scene.fabric.switches[name]
                one.vsctl("set-controller", name, f"unix:{one.folder}/controller.sock")
                one.vsctl("set", "controller", name, "connection_mode=out-of-band", "max_backoff=1000")
            await linked(controller)
            await scene.leads_to(controller, "a")
            await rerouter.cut_over(MOVE)
            await scene.leads_to(controller, "b")
            await rerouter.close()

    over_the_fabric(body)


def test_its_settings(tmp_path: Path) -> None:
    for settings, says in (
        ({}, "controller is missing"),
        ({"controller": "http://x"}, "is no switch's address"),
        ({"controller": "unix:/x", "color": "red"}, "has no color"),
        ({"controller": "ssl:192.0.2.1", "ca": f"{tmp_path}/ca.pem"}, r"ca\.pem is missing"),
        ({"controller": "unix:/x", "limit_s": 0}, "limit_s is not between"),
    ):
        with pytest.raises(ConfigError, match=says) as caught:
            open_vmnet(settings)
        assert "\n" not in str(caught.value)


def test_a_controller_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(
            UnavailableError, match=r"cannot reach the controller at unix:.*is its vmnet-controllerd running"
        ):
            await open_vmnet({"controller": f"unix:{tmp_path}/none.sock"}).prepare(MOVE)

    asyncio.run(body())
