"""The agent alone (``-r``) with BIRD 2, and what it tells of addresses and rules."""

from __future__ import annotations

import asyncio

import pytest
from dataplane_kit import isolated
from fib_kit import VIA6_A, VIA6_B, VIA_A, VIA_B, Heard, Stage, held, staged, until

from dom0.fib.fib import Fib
from vmnet.bench.fib_stage import Bird, Namespace

pytestmark = pytest.mark.root


def config(four: list[str], six: list[str]) -> str:
    return f"""router id 10.9.0.1;
protocol device {{ scan time 1; }}
protocol kernel {{ ipv4 {{ export all; }}; merge paths on; }}
protocol kernel {{ ipv6 {{ export all; }}; merge paths on; }}
protocol static {{ ipv4; {" ".join(f"route {one};" for one in four)} }}
protocol static {{ ipv6; {" ".join(f"route {one};" for one in six)} }}
"""


FOUR = [f"7.0.0.0/8 via {VIA_A} via {VIA_B}", f"8.0.0.0/8 via {VIA_A}", "9.0.0.0/8 blackhole"]
SIX = [f"2001:db8:77::/48 via {VIA6_A} via {VIA6_B}", f"2001:db8:78::/48 via {VIA6_A}"]


async def same(stage: Stage, count: int) -> None:
    """Entry by entry, what the router's own kernel has."""
    await until(lambda: len(held(stage.vm)) == count, 10, f"{count} routes of BIRD's")
    await until(lambda: held(stage.fib) == held(stage.vm), 10, "equal tables")


@isolated(60)
def test_bird_changes_are_followed_and_a_restarted_daemon_takes_up_the_table() -> None:
    async def body(stage: Stage, bird: Bird) -> None:
        heard = Heard()
        fib = Fib(stage.fib.path, "router")
        sessions = heard.sessions(fib, stage.fib)
        await sessions.start()
        agent = stage.agent("-r")
        await until(lambda: heard.synced, 10, "synchronisation")
        await same(stage, 5)
        one_hop_less = [f"2001:db8:77::/48 via {VIA6_B}", *SIX[1:], f"2001:db8:79::/48 via {VIA6_A}"]
        await asyncio.to_thread(bird.configure, config([f"7.0.0.0/8 via {VIA_B}", *FOUR[1:]], one_hop_less))
        await same(stage, 6)
        await sessions.close()
        fib.close()
        # nobody listens while this goes
        await asyncio.to_thread(bird.configure, config(FOUR[:2], SIX))
        later = Heard()
        again = Fib(stage.fib.path, "router")
        sessions = later.sessions(again, stage.fib)
        await sessions.start()
        await until(lambda: later.synced, 10, "synchronisation")
        await same(stage, 4)
        assert again.counts().swept == 2
        agent.kill()
        await sessions.close()

    with staged() as stage:
        bird = Bird(stage.vm, stage.folder, config(FOUR, SIX))
        asyncio.run(body(stage, bird))
        bird.close()


def rules(space: Namespace) -> list[str]:
    return [
        line.replace(" proto 240", "")
        for family in ("-4", "-6")
        for line in space.ip(family, "rule").splitlines()
    ]


@isolated(60)
def test_addresses_and_rules() -> None:
    async def body(stage: Stage) -> None:
        heard = Heard()
        fib = Fib(stage.fib.path, "router")
        sessions = heard.sessions(fib, stage.fib)
        stage.fib.ip("addr", "add", "10.99.0.1/24", "dev", "up0")
        stage.vm.ip("rule", "add", "from", "10.77.0.0/16", "fwmark", "7", "lookup", "77")
        stage.vm.ip("-6", "rule", "add", "iif", "up0", "lookup", "78")
        await sessions.start()
        agent = stage.agent()
        await until(lambda: heard.addresses, 10, "addresses")
        assert "10.99.0.1" not in stage.fib.ip("addr")
        assert "10.255.0.1" in stage.fib.ip("addr", "show", "dev", "mgmt")
        assert "2001:db8:9::1/64" in stage.fib.ip("addr", "show", "dev", "up0")
        assert rules(stage.fib) == rules(stage.vm)
        stage.vm.ip("rule", "del", "from", "10.77.0.0/16", "fwmark", "7", "lookup", "77")
        stage.vm.ip("addr", "del", "10.9.0.1/24", "dev", "up0")
        stage.vm.ip("link", "set", "up0", "mtu", "1400")
        await until(lambda: rules(stage.fib) == rules(stage.vm), 5, "equal rules")
        await until(lambda: "10.9.0.1" not in stage.fib.ip("addr"), 5, "address removed")
        await until(lambda: heard.links[10].mtu == 1400, 5, "MTU reported")
        stage.vm.ip("link", "add", "later", "index", "44", "type", "bridge")
        stage.vm.ip("addr", "add", "10.44.0.1/24", "dev", "later")
        await until(lambda: "10.44.0.1/24" in {str(one) for one in heard.addresses}, 5, "address reported")
        stage.fib.ip("link", "add", "later", "index", "44", "type", "bridge")
        sessions.links_changed()
        await until(
            lambda: "10.44.0.1/24" in stage.fib.ip("addr"), 5, "address on the interface that came later"
        )
        agent.kill()
        await sessions.close()

    with staged() as stage:
        asyncio.run(body(stage))
