"""OSPF with a dead interval of one second, as a neighbour sees a router that stands still for longer: real FRR on both sides.

Only the neighbour is judged: the stopped router's clock goes on, unlike a VM's, and it would give its neighbour up when it goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import pytest
from dataplane_kit import isolated, until
from frr_kit import FRR, Scene, scene, standing_still

from dom0.router.keepalive_port import Impersonator

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not (FRR / "ospfd").exists(), reason="no FRR here"),
]
STILL_S = 3.0
INTERFACE = {
    "ospfd": "interface eth0\n ip ospf area 0\n ip ospf network point-to-point\n"
    " ip ospf dead-interval minimal hello-multiplier 5\n",
    "ospf6d": "interface eth0\n ipv6 ospf6 area 0\n ipv6 ospf6 network point-to-point\n"
    " ipv6 ospf6 hello-interval 1\n ipv6 ospf6 dead-interval 2\n",
}
PROCESS = {"ospfd": "router ospf\n ospf router-id", "ospf6d": "router ospf6\n ospf6 router-id"}
LIST = {"ospfd": "ip ospf neighbor", "ospf6d": "ipv6 ospf6 neighbor"}


def text(daemon: str, number: int) -> str:
    return f"{INTERFACE[daemon]}{PROCESS[daemon]} 192.0.2.{number}\n"


def full(here: Scene, daemon: str) -> bool:
    """Whether the neighbour has the router as a full neighbour."""
    said = here.neighbour.say(f"show {LIST[daemon]}")
    return any("192.0.2.1 " in line and "Full" in line for line in said.splitlines())


@pytest.mark.parametrize("daemon", ["ospfd", "ospf6d"])
@isolated()
def test_hellos_keep_the_adjacency(daemon: str) -> None:
    async def body(here: Scene) -> None:
        with contextlib.closing(here.watch()) as watch, here.sender() as packets:
            await asyncio.to_thread(until, lambda: full(here, daemon), 30, "the adjacency is full")
            end = time.monotonic() + 5
            while not len(watch.book):
                assert time.monotonic() < end, "not within 5 s: a hello at the tap"
                await asyncio.sleep(0.01)
            with standing_still(here.router):
                with Impersonator(watch.book, packets.send, watch.drain):
                    end = time.monotonic() + STILL_S
                    while time.monotonic() < end:
                        assert full(here, daemon), here.neighbour.log()
                        await asyncio.sleep(0.1)
                await asyncio.to_thread(until, lambda: not full(here, daemon), 4, "without us it is over")

    with scene(daemon, text(daemon, 1), text(daemon, 2)) as here:
        asyncio.run(body(here))
