"""Where a VM should run: the best host by brute force, never to and fro, never where there is no room, and reasons with numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from controller_bridge.follow import Decision, Host, Limits, Policy, Situation, Verdict, Vm, decide
from controller_bridge.follow.rating import loads
from controller_bridge.follow.ways import hops
from controller_bridge.topology import Place, Topology

GIB = 1 << 30
quick = settings(max_examples=200, deadline=None)
POLICIES = st.sampled_from(Policy)
LIMITS = st.builds(
    Limits,
    gain_hops=st.floats(0.01, 3),
    gain_percent=st.floats(0.1, 40),
    pause_s=st.floats(0, 100),
    cpu_most_percent=st.floats(20, 100),
    memory_spare_bytes=st.integers(0, 8 * GIB),
)


@dataclass(frozen=True)
class World:
    """What is so wherever the VM is: the hosts' loads without it."""

    vm: Vm
    idle: dict[str, Host]
    links: tuple[tuple[str, str], ...]
    switches: frozenset[str]
    traffic: dict[str, float]

    def with_vm_on(self, name: str) -> Situation:
        idle = self.idle[name]
        busy = replace(
            idle,
            cpu_percent=idle.cpu_percent + 100 * self.vm.cpus_busy / idle.cpus,
            memory_available_bytes=idle.memory_available_bytes - self.vm.memory_bytes,
        )
        hosts = {**self.idle, name: busy}
        return Situation(replace(self.vm, host=name), hosts, self.ways(), self.traffic)

    def ways(self) -> dict[str, dict[str, int]]:
        """By the fabric's topology; each link has ports of its own."""
        ports = [(Place(one, number), Place(other, number)) for number, (one, other) in enumerate(self.links)]
        links = [link for link in ports if {end.switch for end in link} <= self.switches]
        ends = {one.switch: other for one, other in ports if one.switch not in self.switches}
        hosts = {name: ends[name] for name in self.idle}
        return hops(Topology(self.switches, links), hosts, {name: ends[name] for name in self.traffic})


@st.composite
def worlds(draw: st.DrawFn) -> World:
    switches = [f"s{n}" for n in range(draw(st.integers(1, 6)))]
    hosts = [f"h{n}" for n in range(draw(st.integers(1, 5)))]
    clients = [f"c{n}" for n in range(draw(st.integers(0, 4)))]
    pairs = [(a, b) for n, a in enumerate(switches) for b in switches[:n]]
    links = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    links += [(end, draw(st.sampled_from(switches))) for end in (*hosts, *clients)]
    one = st.builds(
        Host,
        cpu_percent=st.floats(0, 60),
        cpus=st.integers(1, 64),
        memory_available_bytes=st.integers(GIB, 16 * GIB),
        memory_total_bytes=st.just(16 * GIB),
    )
    vm = Vm("vm1", hosts[0], draw(st.integers(0, GIB)), draw(st.floats(0, 0.4)))
    rates = {client: draw(st.just(0.0) | st.floats(1, 1e9)) for client in clients}
    return World(vm, {name: draw(one) for name in hosts}, tuple(links), frozenset(switches), rates)


@cache
def _distances(
    links: tuple[tuple[str, str], ...], ends: frozenset[str], switches: frozenset[str]
) -> dict[tuple[str, str], float]:
    """Floyd and Warshall's, over switches alone."""
    names = {name for link in links for name in link} | ends
    found = {(a, b): 0.0 if a == b else math.inf for a in names for b in names}
    for a, b in links:
        found[a, b] = found[b, a] = 1.0
    for middle in switches & names:
        for a in names:
            for b in names:
                found[a, b] = min(found[a, b], found[a, middle] + found[middle, b])
    return found


def distances(world: World) -> dict[tuple[str, str], float]:
    return _distances(world.links, frozenset(world.idle), world.switches)


def reached(world: World, host: str) -> set[str]:
    way = distances(world)
    return {client for client, rate in world.traffic.items() if rate and way[host, client] < math.inf}


def cost(world: World, policy: Policy, host: str) -> float:
    """Written down from the policies' definitions, for a VM that is nowhere yet."""
    idle, vm = world.idle[host], world.vm
    if policy is Policy.NEAREST:
        way = distances(world)
        counts = {
            c: r for c, r in world.traffic.items() if r and any(way[h, c] < math.inf for h in world.idle)
        }
        total = sum(counts.values())
        return sum(rate * way[host, client] for client, rate in counts.items()) / total if total else 0.0
    taken = 16 * GIB - idle.memory_available_bytes
    if policy is Policy.LOAD:
        return max(
            idle.cpu_percent + 100 * vm.cpus_busy / idle.cpus, 100 * (taken + vm.memory_bytes) / (16 * GIB)
        )
    return 100 - max(idle.cpu_percent, 100 * taken / (16 * GIB))


def able(world: World, limits: Limits, host: str) -> bool:
    """To take the VM from h0: it has room, and cuts no client off."""
    if not reached(world, host) >= reached(world, "h0"):
        return False
    idle = world.idle[host]
    memory = idle.memory_available_bytes - world.vm.memory_bytes >= limits.memory_spare_bytes
    return memory and idle.cpu_percent + 100 * world.vm.cpus_busy / idle.cpus <= limits.cpu_most_percent


def asked(policy: Policy, limits: Limits) -> float:
    return limits.gain_hops if policy is Policy.NEAREST else limits.gain_percent


def steps(world: World, policy: Policy, limits: Limits, start: str) -> list[Decision]:
    """What is decided once a second, and done."""
    here, moved_s, made = start, None, list[Decision]()
    for second in range(6):
        found = decide(world.with_vm_on(here), policy, limits, now_s=second * 1000.0, moved_s=moved_s)
        made.append(found)
        if found.verdict is Verdict.MOVE:
            here, moved_s = found.host, second * 1000.0
    return made


@quick
@given(worlds(), POLICIES, LIMITS)
def test_the_best_host_with_room_by_brute_force(world: World, policy: Policy, limits: Limits) -> None:
    found = decide(world.with_vm_on("h0"), policy, limits, now_s=0.0)
    costs = {host: cost(world, policy, host) for host in world.idle}
    others = [host for host in world.idle if host != "h0" and able(world, limits, host)]
    best = min((costs[host] for host in others), default=math.inf)
    gain = costs["h0"] - best if best < math.inf else 0.0
    assume(abs(gain - asked(policy, limits)) > 1e-6)
    if gain > asked(policy, limits):
        assert found.verdict is Verdict.MOVE
        assert found.host in others
        assert math.isclose(costs[found.host], best, rel_tol=1e-9, abs_tol=1e-9)
        assert math.isclose(found.gain, gain, rel_tol=1e-9, abs_tol=1e-9)
    else:
        assert found.verdict in (Verdict.STAY, Verdict.REFUSED)
        assert found.host == "h0"


@quick
@given(worlds(), POLICIES, LIMITS)
def test_refused_only_where_what_is_better_has_no_room(world: World, policy: Policy, limits: Limits) -> None:
    found = decide(world.with_vm_on("h0"), policy, limits, now_s=0.0)
    costs = {host: cost(world, policy, host) for host in world.idle}
    better = [
        host
        for host, one in costs.items()
        if one < math.inf and costs["h0"] - one >= asked(policy, limits) + 1e-6
    ]
    if found.verdict is Verdict.REFUSED:
        assert not [host for host in better if able(world, limits, host)]
    if better and not any(able(world, limits, host) for host in better):
        assert found.verdict is Verdict.REFUSED


@quick
@given(worlds(), POLICIES, LIMITS)
def test_constant_facts_move_a_vm_once_at_most(world: World, policy: Policy, limits: Limits) -> None:
    for start in world.idle:
        verdicts = [one.verdict for one in steps(world, policy, limits, start)]
        assert verdicts.count(Verdict.MOVE) <= 1
        assert Verdict.MOVE not in verdicts[1:], "what is right later is right at once"


@quick
@given(worlds(), POLICIES, LIMITS, st.floats(0, 200))
def test_not_before_the_pause_is_over(world: World, policy: Policy, limits: Limits, since_s: float) -> None:
    there = world.with_vm_on("h0")
    free = decide(there, policy, limits, now_s=1000.0)
    found = decide(there, policy, limits, now_s=1000.0 + since_s, moved_s=1000.0)
    if free.verdict is not Verdict.MOVE or 1000.0 + since_s >= 1000.0 + limits.pause_s:
        assert found.verdict is free.verdict
        assert found.again_s is None
    else:
        assert (found.verdict, found.host, found.best) == (Verdict.WAIT, "h0", free.best)
        assert found.again_s is not None
        again = decide(there, policy, limits, now_s=found.again_s, moved_s=1000.0)
        assert (again.verdict, again.host) == (Verdict.MOVE, free.host)


@quick
@given(worlds(), POLICIES, LIMITS)
def test_reasons_name_every_host_and_the_numbers(world: World, policy: Policy, limits: Limits) -> None:
    found = decide(world.with_vm_on("h0"), policy, limits, now_s=0.0)
    text = "\n".join(found.why)
    assert all(line.isprintable() and line for line in found.why)
    assert "vm1" in found.why[0]
    assert all(host in text for host in world.idle)
    assert "inf" not in text.split()
    assert "nan" not in text
    if found.verdict is Verdict.MOVE:
        places = 2 if policy is Policy.NEAREST else 1
        here, there = found.ratings["h0"].cost, found.ratings[found.host].cost
        shown = [there, here] if policy is not Policy.PACK else [100 - there, 100 - here]
        numbers = [*shown, found.gain, asked(policy, limits)]
        assert all(f"{one:.{places}f} " in found.why[0] for one in numbers if one < math.inf)
    for name, one in found.ratings.items():
        if one.against and name != "h0":
            assert one.against in text


@quick
@given(worlds())
def test_a_host_is_as_loaded_with_the_vm_wherever_that_is(world: World) -> None:
    for name in world.idle:
        for where in world.idle:
            for one, other in zip(
                loads(world.with_vm_on(where), name), loads(world.with_vm_on(name), name), strict=True
            ):
                assert math.isclose(one.cpu_percent, other.cpu_percent, abs_tol=1e-6)
                assert math.isclose(one.memory_percent, other.memory_percent, abs_tol=1e-6)
