"""A router's links move between two hosts under traffic both ways: nothing lost, nothing twice, nothing out of order."""

import os

import pytest
from dataplane_kit import isolated, until
from router_pair import LEFT, RIGHT, RouterPair, settle

from dom0.dataplane import netdev

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MACS = (LEFT, RIGHT)


def stopped(pair: RouterPair, running: dict[bytes, object]) -> dict[bytes, list[int]]:
    """What arrived at each end, once all that was sent has had time to."""
    sent = {mac: one.stop() for mac, one in running.items()}  # type: ignore[attr-defined]
    got: dict[bytes, list[int]] = {mac: [] for mac in MACS}

    def all_there() -> bool:
        for mac in MACS:
            got[mac] += pair.numbers(mac)
        return all(len(got[mac]) >= sent[mac] for mac in MACS)

    until(all_there, 3, f"all of {sent} arrived")
    for mac in MACS:
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
