"""Switches whose tables are too small: real Open vSwitches that refuse, and packets that arrive all the same."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import struct
from ipaddress import ip_address

import pytest
from dataplane_kit import isolated
from led_scene import (
    CLIENT,
    ETHERTYPE,
    GATEWAY,
    MOVE,
    Scene,
    linked,
    over_the_fabric,
    until_async,
)

from controller_bridge.controller import Controller
from controller_bridge.core import neighbours
from controller_bridge.core.desired import BASE

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
STATIONS = 60


def mac(number: int) -> bytes:
    return bytes([0x02, 0, 0, 0, 0xA, number])


async def crowd(scene: Scene, controller: Controller) -> None:
    """Many stations at the server's port, 10.1.0.100 and on; the VM and the client."""
    for number in range(STATIONS):
        own = ip_address(f"10.1.0.{100 + number}")
        scene.wires["c"].send(neighbours.question(own, mac(number), own))
    await until_async(lambda: mac(STATIONS - 1) in controller.core.hosts.stations, "all are known")
    await scene.speak(controller)


def small(scene: Scene, name: str, limit: int) -> None:
    scene.fabric.switches[name].vsctl(
        *("--", "--id=@t", "create", "Flow_Table", f"flow_limit={limit}", "overflow_policy=refuse"),
        *("--", "set", "bridge", name, "flow_tables:0=@t"),
    )


def ours(scene: Scene, name: str) -> list[str]:
    return [line for line in scene.fabric.switches[name].dump() if "cookie=0x766d6e6574" in line]


async def every_station_is_reached(scene: Scene) -> None:
    """By its MAC address, and through the gateway; each packet once."""
    wire = scene.wires["c"]
    while True:
        try:
            wire.recv(2000)
        except BlockingIOError:
            break
    sent = {}
    for number in range(STATIONS):
        payload = struct.pack("!H", number)
        sent[mac(number), b"direct" + payload] = (
            mac(number) + CLIENT + struct.pack("!H", ETHERTYPE) + b"direct" + payload
        )
        packet = struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            0,
            30,
            number,
            0,
            64,
            253,
            0,
            bytes([10, 1, 0, 1]),
            bytes([10, 1, 0, 100 + number]),
        )
        sent[mac(number), b"routed" + payload] = GATEWAY + CLIENT + b"\x08\x00" + packet + b"routed" + payload
    for frame in sent.values():
        scene.wires["client"].send(frame.ljust(60, b"\0"))
        await asyncio.sleep(0.005)  # packets_per_s is 500
    got: list[tuple[bytes, bytes]] = []

    def read() -> int:
        while True:
            try:
                said = wire.recv(2000)
            except BlockingIOError:
                return len(got)
            for word in (b"direct", b"routed"):
                if word in said and (said[:6], said[said.index(word) :][:8]) in sent:
                    got.append((said[:6], said[said.index(word) :][:8]))

    await until_async(lambda: read() >= len(sent), f"{len(sent)} packets arrive")
    assert sorted(got) == sorted(sent)


@isolated(180)
def test_a_table_that_is_full_is_found_out_and_everybody_is_reached() -> None:
    async def body(scene: Scene) -> None:
        small(scene, "s1", 45)
        small(scene, "s2", 45)
        async with scene.controller() as controller:
            await linked(controller)
            commits: list[str] = []
            before = controller._commit

            async def counted(name: str, changes: list[object]) -> bool:
                commits.append(name)
                return await before(name, changes)  # type: ignore[arg-type]

            controller._commit = counted  # type: ignore[method-assign, assignment]
            await crowd(scene, controller)
            assert [len(ours(scene, name)) for name in ("s1", "s2")] == [45, 45]
            assert controller.core.members["s1"].room.limit == 45
            assert len(ours(scene, "s4")) == len(BASE) + 2 * (STATIONS + 2)
            assert controller.switches.keys() == {"s1", "s2", "s3", "s4"}, "none has been connected to anew"
            calm = len(commits)
            await every_station_is_reached(scene)
            assert len(commits) == calm, "it goes on trying"

    over_the_fabric(body)


@isolated(180)
def test_a_vm_moves_though_tables_are_full() -> None:
    async def body(scene: Scene) -> None:
        said: list[str] = []
        log = logging.getLogger("controller_bridge.controller")
        log.addHandler(handler := logging.Handler())
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        limit = 40
        for name in ("s1", "s2"):
            small(scene, name, limit)
        async with scene.controller(sizes={"s1": 30, "s3": 30}) as controller:
            rerouter = scene.rerouter()
            await linked(controller)
            await crowd(scene, controller)
            assert [len(ours(scene, name)) for name in ("s1", "s2", "s3")] == [30, limit, 30]
            for step in (rerouter.prepare, rerouter.cut_over, rerouter.finish):
                await step(MOVE)
                assert len(ours(scene, "s1")) <= 30 and len(ours(scene, "s3")) <= 30
            await scene.leads_to(controller, "b")  # the VM's entries come before others'
            await controller.quiet.wait()
            full = [one for one in said if "its table is full with 30 entries of ours" in one]
            assert sorted(one.split()[1] for one in full) == ["s1:", "s3:"], said
            await every_station_is_reached(scene)
            await rerouter.close()

    over_the_fabric(body)


@isolated(180)
def test_what_has_to_be_there_first_makes_room_for_itself() -> None:
    """The table is full, with entries of ours and others', and one of the fixed entries is not there."""

    async def body(scene: Scene) -> None:
        small(scene, "s1", 45)
        s1 = scene.fabric.switches["s1"]
        async with scene.controller() as controller:
            await linked(controller)
            await crowd(scene, controller)
        s1.ofctl("del-flows", "cookie=0x766d6e6574000002/-1,arp")
        s1.ofctl("add-flow", "cookie=5,priority=7,in_port=77,actions=drop")
        assert len(s1.dump()) == 45
        async with scene.controller() as controller:
            await linked(controller)
            assert [line for line in s1.dump() if "priority=60000,arp" in line]
            assert [line for line in s1.dump() if "cookie=0x5" in line], "it was somebody else's"
            await every_station_is_reached(scene)

    over_the_fabric(body)
