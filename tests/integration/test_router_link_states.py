"""A router's interfaces follow its VM's, off the loop; a VM that says nonsense or changes its mind all the time harms nobody."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from dataplane_kit import isolated
from fib_kit import until

from dom0.router.link_states import PAUSE_S, LinkStates
from vmnet.bench.fib_stage import Namespace, veth

pytestmark = pytest.mark.root


@isolated(30)
def test_the_newest_state_is_applied_and_nonsense_is_not() -> None:
    here, beyond = Namespace(), Namespace()
    veth(here, "eth0", 2, beyond, "g0", 20)
    veth(here, "eth1", 3, beyond, "g1", 21)
    here.ip("link", "set", "eth0", "up")
    changes: list[float] = []

    async def body() -> None:
        states = LinkStates(here.path, lambda: changes.append(time.monotonic()), logging.getLogger("test"))
        for mtu in (0, 67, 70_000, 2**32 - 1):
            states.want("eth0", True, mtu)
        for count in range(2000):
            states.want("eth0", count % 2 == 0, 1400 + count % 50)
        states.want("eth0", False, 1400)
        states.want("eth9", True, 1500)
        states.want("eth1", True, 1300)
        await until(lambda: "mtu 1300" in here.ip("link", "show", "eth1"), 5, "the MTU of eth1")
        assert "state DOWN" in here.ip("link", "show", "eth0") and "mtu 1400" in here.ip(
            "link", "show", "eth0"
        )
        states.want("eth0", True, 1500)
        await until(lambda: "mtu 1500" in here.ip("link", "show", "eth0"), 5, "the MTU of eth0")
        await until(lambda: len(changes) == 2, 5, "the second change")
        states.want("eth0", True, 1500)
        await states.end()

    asyncio.run(body())
    assert len(changes) == 2 and changes[1] - changes[0] >= PAUSE_S * 0.9
