"""The agent alone (``-r``) with BIRD 2, and what it tells of addresses and rules."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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


@asynccontextmanager
async def told(stage: Stage) -> AsyncIterator[Heard]:
    """The agent tells of the router to the namespace that forwards for it."""
    heard = Heard()
    sessions = heard.sessions(Fib(stage.fib.path, "router"), stage.fib)
    await sessions.start()
    agent = stage.agent()
    try:
        yield heard
    finally:
        agent.kill()
        await sessions.close()


PERMANENT = "10.9.0.77 dev up0 lladdr 02:00:00:00:00:77 PERMANENT"


@isolated(60)
def test_permanent_neighbours_are_copied_and_go() -> None:
    async def body(stage: Stage) -> None:
        stage.vm.ip(
            "neigh", "add", "10.9.0.77", "lladdr", "02:00:00:00:00:77", "dev", "up0", "nud", "permanent"
        )
        stage.vm.ip(
            "neigh", "add", "10.255.0.9", "lladdr", "02:00:00:00:00:79", "dev", "mgmt", "nud", "permanent"
        )
        stage.fib.ip(
            "neigh", "add", "10.9.0.66", "lladdr", "02:00:00:00:00:66", "dev", "up0", "nud", "permanent"
        )
        async with told(stage):
            await until(lambda: PERMANENT in neighbours(stage.fib), 10, "the permanent neighbour")
            await until(
                lambda: "10.9.0.66" not in neighbours(stage.fib), 5, "removal of what the router has not"
            )
            assert "10.255.0.9" not in neighbours(stage.fib)
            six = ("2001:db8:9::77", "lladdr", "02:00:00:00:00:78", "dev", "up0")
            stage.vm.ip("neigh", "add", *six, "nud", "noarp")
            await until(lambda: "2001:db8:9::77" in neighbours(stage.fib), 5, "the one without ARP")
            stage.vm.ip(
                "neigh",
                "replace",
                "10.9.0.77",
                "lladdr",
                "02:00:00:00:00:99",
                "dev",
                "up0",
                "nud",
                "permanent",
            )
            await until(lambda: "00:00:99 PERMANENT" in neighbours(stage.fib), 5, "its new address")
            stage.vm.ip(
                "neigh", "replace", "10.9.0.77", "lladdr", "02:00:00:00:00:99", "dev", "up0", "nud", "stale"
            )
            stage.vm.ip("neigh", "del", *six)
            await until(lambda: "PERMANENT" not in neighbours(stage.fib), 5, "removal of both")

    with staged() as stage:
        asyncio.run(body(stage))


def neighbours(space: Namespace) -> str:
    return space.ip("neigh", "show")


@isolated(60)
def test_what_the_kernel_does_beside_routing_is_told() -> None:
    async def body(stage: Stage) -> None:
        async with told(stage) as heard:
            await until(lambda: heard.report, 10, "a report")
            kernel = heard.kernel()
            assert kernel.told and kernel.filters == ()
            assert {one.name for one in kernel.links} == {"lo", "mgmt", "up0"}
            before = kernel.forwarding[4, 10]
            stage.vm.run("sh", "-c", f"echo {int(not before)} > /proc/sys/net/ipv4/conf/up0/forwarding")
            await until(lambda: heard.kernel().forwarding[4, 10] is not before, 5, "its forwarding")
            stage.vm.ip("link", "add", "below", "link", "up0", "type", "macvlan")
            await until(
                lambda: "macvlan" in {one.kind for one in heard.kernel().links}, 5, "a macvlan interface"
            )
            stage.vm.run(
                "tc",
                "qdisc",
                "add",
                "dev",
                "up0",
                "root",
                "tbf",
                *(["rate", "1mbit", "burst", "10k", "latency", "1s"]),
            )
            await until(lambda: (10, "tbf") in heard.kernel().qdiscs, 5, "a queueing discipline")
            stage.vm.run("tc", "qdisc", "del", "dev", "up0", "root")
            await until(lambda: (10, "tbf") not in heard.kernel().qdiscs, 5, "none")
            nft = functools.partial(stage.vm.run, "nft")
            nft(
                "add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy accept; }"
            )
            nft("add chain inet fw own { type filter hook input priority 0; policy drop; }")
            nft("add rule inet fw f ip daddr 203.0.113.7 drop")
            await until(lambda: heard.kernel().filters, 5, "the rule")
            assert heard.kernel().filters == ("nftables chain inet fw f (forward) has rules or drops",)
            nft("flush chain inet fw f")
            await until(lambda: not heard.kernel().filters, 5, "no rule")
            nft("add chain inet fw f { policy drop; }")
            await until(lambda: heard.kernel().filters, 5, "the policy")
            nft("delete table inet fw")
            await until(lambda: not heard.kernel().filters, 5, "nothing")

    with staged() as stage:
        asyncio.run(body(stage))


@isolated(60)
def test_rules_of_iptables_are_told() -> None:
    """Its tables come into the kernel by a mere look: that alone is no rule."""

    async def body(stage: Stage) -> None:
        async with told(stage) as heard:
            for tool, words in (("iptables-legacy", "iptables"), ("ip6tables-legacy", "ip6tables")):
                tables = functools.partial(stage.vm.run, tool)
                tables("-t", "filter", "-S")
                tables("-t", "mangle", "-S")
                tables("-A", "INPUT", "-p", "udp", "-j", "DROP")
                await until(lambda: heard.report, 10, "a report")
                tables("-t", "mangle", "-A", "FORWARD", "-j", "MARK", "--set-mark", "7")
                await until(
                    lambda words=words: heard.kernel().filters == (f"{words} has rules",), 5, f"{words}' rule"
                )
                tables("-t", "mangle", "-F", "FORWARD")
                await until(lambda: heard.kernel().filters == (), 5, "no rule")
                tables("-P", "FORWARD", "DROP")
                await until(lambda: heard.kernel().filters, 5, "the policy")
                tables("-P", "FORWARD", "ACCEPT")
                await until(lambda: not heard.kernel().filters, 5, "no policy")

    with staged() as stage:
        asyncio.run(body(stage))
