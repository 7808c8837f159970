"""A VRRP master that stands still, as its backup sees it: FRR's vrrpd on both sides, advertisements every 100 ms."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import pytest
from dataplane_kit import Host, ip, isolated, until
from frr_kit import FRR, Scene, scene, standing_still

from dom0.router.keepalive_port import Impersonator

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not (FRR / "vrrpd").exists(), reason="no FRR here"),
]
STILL_S = 1.0


def text(priority: int) -> str:
    words = (f"version 3\n vrrp 7 priority {priority}", "advertisement-interval 100", "ip 192.0.2.9")
    return "interface eth0\n" + "".join(f" vrrp 7 {one}\n" for one in words)


def add_virtual_router(host: Host) -> None:
    """The device vrrpd looks for: a macvlan with the virtual router's MAC and IP address."""
    with host:
        ip("link", "add", "vrrp4-7", "link", "eth0", "type", "macvlan", "mode", "bridge")
        ip("link", "set", "vrrp4-7", "address", "00:00:5e:00:01:07")
        ip("addr", "add", "192.0.2.9/24", "dev", "vrrp4-7")
        ip("link", "set", "vrrp4-7", "up")


def role(here: Scene, which: str) -> str:
    return str(getattr(here, which).show("vrrp")[0]["v4"]["status"])


def settled(here: Scene) -> bool:
    return (role(here, "router"), role(here, "neighbour")) == ("Master", "Backup")


@isolated()
def test_the_backup_stays_one() -> None:
    async def body(here: Scene) -> None:
        add_virtual_router(here.router_host)
        add_virtual_router(here.neighbour_host)
        with contextlib.closing(here.watch()) as watch, here.sender() as packets:
            await asyncio.to_thread(until, lambda: settled(here), 20, "a master and a backup")
            end = time.monotonic() + 5
            while not len(watch.book):
                assert time.monotonic() < end, "not within 5 s: an advertisement at the tap"
                await asyncio.sleep(0.01)
            (entry,) = watch.book.entries()
            assert entry.keepalive.frame[6:12] == bytes.fromhex("00005e000107")
            with standing_still(here.router):
                with Impersonator(watch.book, packets.send, watch.drain):
                    await asyncio.sleep(STILL_S)
                    assert role(here, "neighbour") == "Backup"
                await asyncio.to_thread(
                    until, lambda: role(here, "neighbour") == "Master", 2, "without us it takes over"
                )

    with scene("vrrpd", text(200), text(100)) as here:
        asyncio.run(body(here))
