"""A router's links move between two hosts under traffic both ways: nothing lost, nothing twice, nothing out of order."""

import asyncio
import os
import threading
from typing import cast

import pytest
from dataplane_kit import isolated, until
from router_pair import LEFT, RIGHT, RouterPair, settle

from dom0.dataplane import netdev
from dom0.dataplane.gate_program import Mode
from dom0.router.arriving import RouterArriving
from dom0.router.router import Router

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MACS = (LEFT, RIGHT)


def stopped(pair: RouterPair, running: dict[bytes, object]) -> dict[bytes, list[int]]:
    """What arrived at each end, once all that was sent has had time to."""
    sent = {mac: one.stop() for mac, one in running.items()}  # type: ignore[attr-defined]
    got: dict[bytes, list[int]] = {mac: [] for mac in sent}

    def all_there() -> bool:
        for mac in sent:
            got[mac] += pair.numbers(mac)
        return all(len(got[mac]) >= sent[mac] for mac in sent)

    until(all_there, 3, f"all of {sent} arrived")
    for mac in sent:
        got[mac] += pair.numbers(mac)
        assert sent[mac] > 100
        assert len(got[mac]) == sent[mac]
    return got


@pytest.mark.parametrize("rate", [1000, 10_000])
@isolated()
def test_links_move_under_traffic(rate: int) -> None:
    pair = RouterPair()
    pair.prepare()
    running = pair.traffic(rate)
    settle(0.3)
    pair.expect()
    pair.divert()
    pair.take()
    settle(0.3)
    got = stopped(pair, running)
    assert all(numbers == sorted(numbers) for numbers in got.values())
    assert all(port.counts().passed > 10 for port in pair.new.plane.ports.values())
    pair.close()
    with pair.a:
        assert not [name for name in netdev.all_names() if name.startswith(("vmt", "vmp"))]


@isolated()
def test_the_old_host_forwards_until_the_moment_and_nothing_afterwards() -> None:
    pair = RouterPair()
    pair.prepare()
    running = pair.traffic(1000)
    settle(0.1)
    pair.expect()
    before = {mac: port.counts().passed for mac, port in pair.new.plane.ports.items()}
    settle(0.1)
    assert before == {mac: port.counts().passed for mac, port in pair.new.plane.ports.items()}
    pair.divert()
    pair.take()
    settle(0.1)
    old = {mac: port.counts().passed for mac, port in pair.old.plane.ports.items()}
    settle(0.2)
    assert old == {mac: port.counts().passed for mac, port in pair.old.plane.ports.items()}
    stopped(pair, running)


@isolated()
def test_links_that_have_moved_come_back_without_a_loss() -> None:
    pair = RouterPair()
    pair.prepare()
    running = pair.traffic(1000)
    settle(0.2)
    pair.expect()
    pair.divert()
    pair.take()
    settle(0.2)
    pair.go_back()
    settle(0.3)
    stopped(pair, running)
    pair.close()


@isolated()
def test_traffic_one_way_is_forwarded_again_when_both_links_are_back() -> None:
    """Nothing leaves by the link at which it arrives: the fabric goes on sending it to the old host."""
    pair = RouterPair()
    pair.prepare()
    running = pair.traffic(1000)
    running.pop(LEFT).stop()
    settle(0.2)
    pair.expect()
    pair.divert()
    settle(0.1)
    pair.go_back(0.05)
    settle(0.2)
    stopped(pair, running)
    pair.close()


@isolated()
def test_links_come_back_before_the_new_host_has_announced_them() -> None:
    pair = RouterPair()
    pair.prepare()
    running = pair.traffic(1000)
    settle(0.2)
    pair.expect()
    pair.divert()
    settle(0.1)
    pair.go_back()
    settle(0.2)
    stopped(pair, running)
    pair.close()


class _Hushed:
    """The part of a router that its links' return touches besides them: it says nothing in the VM's name."""

    def hush(self) -> None:
        pass


class _Busy(RouterArriving):
    """On a host where what is under way takes its time: half a second, or until the links have gone back."""

    def __init__(self) -> None:
        super().__init__(cast(Router, _Hushed()))
        self._back = threading.Event()

    def _tunnelled(self) -> int:
        self._back.wait(0.5)
        return super()._tunnelled()

    def _go_back(self) -> None:
        super()._go_back()
        self._back.set()


@isolated()
def test_links_that_go_back_are_not_opened() -> None:
    """The end marker may come just then: opened, a silent link would forward what it gets to nowhere."""
    pair = RouterPair()
    pair.prepare()
    pair.expect()
    arriving = _Busy()
    arriving.links = pair.arriving

    async def both() -> None:
        await asyncio.gather(arriving.open(), arriving.go_back())
        await arriving.open()

    with pair.b:
        asyncio.run(both())
        assert [link.port.mode for link in arriving.links] == [Mode.DIVERT, Mode.DIVERT]
        assert arriving.taken.is_set() and arriving.given_back.is_set()
    pair.close()
