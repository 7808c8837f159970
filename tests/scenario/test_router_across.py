"""A virtual router moves to a host without one of its LANs, and back: the tunnel is its link there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import router_kit
from router_lab import routed_lab
from router_marks import MARKS

from vmnet.lab import Lab

pytestmark = MARKS


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with routed_lab("multihop", "labacross") as made:
        router_kit.prepare(made)
        yield made


@pytest.mark.parametrize("turn", range(2 * router_kit.REPEAT))
def test_there_and_back(lab: Lab, turn: int) -> None:
    router_kit.forwarding(lab)
    router_kit.settled(lab, stretched=2)
    if router_kit.where(lab).name != "h2":  # an earlier turn failed on the way
        router_kit.migrate(lab, "h2")
        router_kit.settled(lab)
    for name in ("h6", "h2"):
        with router_kit.undisturbed(lab) as traffic:
            verdict = router_kit.migrate(lab, name)
            router_kit.wait_packets(traffic, 2000)
        assert verdict["ordered"]
        host = router_kit.where(lab)
        router_kit.wait_same_fib(lab, host)
        router_kit.settled(lab, stretched=2 if name == "h6" else 0)
