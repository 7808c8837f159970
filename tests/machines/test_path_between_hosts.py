"""A path between the hosts that loses, delays or reorders (sch_netem, which stock kernels have): the verdict is the meter's."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vmnet.bench.rows import Case, Row
from vmnet.bench.schemes import SCHEMES
from vmnet.bench.stage import Place, Stage
from vmnet.bench.vm import Bench, Settings, Step
from vmnet.lab import Host

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(1800)]
SCHEME = SCHEMES["machines-vmnet"]
RATE_PPS = 100
UPLINK = "up0"
TUNNEL_ALONE = "match ip protocol 17 0xff match ip dport 6643 0xffff"
EVERYTHING = "match u32 0 0"


@contextmanager
def netem(host: Host, how: str, what: str) -> Iterator[None]:
    """What ``host`` sends of ``what`` is treated as tc-netem(8) says."""
    tc = f"tc qdisc add dev {UPLINK}"
    select = f"tc filter add dev {UPLINK} parent 1: protocol ip u32 {what} flowid 1:3"
    add = f"{tc} root handle 1: prio; {tc} parent 1:3 handle 30: netem {how}; {select}"
    host.run(["sh", "-ec", add])
    try:
        yield
    finally:
        host.run(["tc", "qdisc", "del", "dev", UPLINK, "root"])


def move(ready: Stage, how: str, what: str) -> tuple[Place, Row]:
    settings = Settings([SCHEME.name], [RATE_PPS], ["idle"], runs=1, controls=0)
    place = ready.focus(SCHEME.lab)
    with netem(place.settled(), how, what):
        row = Bench(settings, ready).step(Step(Case(SCHEME.name, RATE_PPS, 64, "idle"), 0, False))
    assert row.error == "" and row.verdict is not None, row
    return place, row


def test_what_the_tunnel_loses_is_lost_in_the_verdict(ready: Stage) -> None:
    _place, row = move(ready, "loss 30%", TUNNEL_ALONE)
    assert row.verdict is not None
    assert row.lost_out > 0, "nothing went through the tunnel: the test shows nothing"
    assert row.verdict["lost"] == row.lost_out
    assert not row.verdict["clean"]
    assert any("went into the tunnel" in note for note in row.verdict["notes"])


@pytest.mark.parametrize("how", ["delay 5ms", "delay 50ms"])
def test_delay_between_the_hosts_loses_nothing(ready: Stage, how: str) -> None:
    _place, row = move(ready, how, EVERYTHING)
    assert row.verdict is not None
    assert (row.lost, row.reordered, row.verdict["lost"]) == (0, 0, 0)


def test_reordering_in_the_tunnel_is_not_called_a_loss(ready: Stage) -> None:
    """The tunnel cannot put it in order: what is not shown is not promised."""
    _place, row = move(ready, "delay 20ms reorder 25% 50%", TUNNEL_ALONE)
    assert row.verdict is not None
    assert (row.lost_out, row.verdict["lost"]) == (0, 0)
