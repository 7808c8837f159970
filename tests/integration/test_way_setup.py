"""Before a switch turns to a new way, frames like the senders' go by it to the VM's new host (:mod:`controller_bridge.way_setup`)."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from dataplane_kit import isolated
from led_scene import CLIENT, CLIENT_IP, MOVE, VM, VM_IP, Scene, linked, over_the_fabric, until_async

from controller_bridge import setup_frame
from controller_bridge.controller import Controller
from controller_bridge.rerouters.vmnet import VmnetRerouter

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
HEADERS = [
    VM
    + CLIENT
    + struct.pack("!HBBHHHBBH", 0x0800, 0x45, 0, 28, 0, 0, 64, 17, 0)
    + CLIENT_IP.packed
    + VM_IP.packed
    + struct.pack("!HHHH", port, 7, 8, 0)
    for port in (1000, 1001)
]


def setups(scene: Scene, host: str) -> list[bytes]:
    """Of what has come to the host's port since the last time."""
    heard = []
    with contextlib.suppress(BlockingIOError):
        while True:
            heard.append(scene.wires[host].recv(2000))
    return [one for one in heard if one[6:12] == setup_frame.SOURCE]


@asynccontextmanager
async def prepared(scene: Scene) -> AsyncIterator[tuple[Controller, VmnetRerouter]]:
    """The fabric knows the VM, and that it will move."""
    async with scene.controller() as controller:
        rerouter = scene.rerouter()
        await linked(controller)
        await scene.speak(controller)
        await rerouter.prepare(MOVE)
        yield controller, rerouter
        await rerouter.close()


@isolated(120)
def test_they_come_to_the_new_host_alone_and_teach_nobody_anything() -> None:
    async def body(scene: Scene) -> None:
        async with prepared(scene) as (controller, rerouter):
            assert await rerouter.set_up_and_cut_over(MOVE, HEADERS)
            await scene.leads_to(controller, "b")
            # s1, s2 and s4 have another way now; those that are next to s3 send their frames to it
            heard: list[bytes] = []

            def came() -> bool:
                heard.extend(setups(scene, "b"))
                return len(heard) >= 2 * len(HEADERS)

            await until_async(came, "both switches' frames")
            assert set(heard) == set(setup_frame.setup_frames(HEADERS))
            assert setups(scene, "a") == [], "one went to the old place"
            assert setup_frame.SOURCE not in controller.core.hosts.stations
            await rerouter.finish(MOVE)

    over_the_fabric(body)


@isolated(120)
def test_a_switch_that_does_not_show_the_hello_is_not_waited_for_and_not_believed() -> None:
    """s3 drops hellos from now on; for some seconds its links are still believed to be there."""

    async def body(scene: Scene) -> None:
        async with prepared(scene) as (controller, rerouter):
            scene.fabric.switches["s3"].ofctl("add-flow", "priority=65001,dl_type=0x88cc,actions=drop")
            assert not await rerouter.set_up_and_cut_over(MOVE, HEADERS)
            await scene.leads_to(controller, "b")

    over_the_fabric(body)
