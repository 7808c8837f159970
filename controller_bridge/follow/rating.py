"""What each host would cost a VM under a policy, and what speaks against it. Pure.

A cost does not depend on where the VM is now: a host's load counts without the VM, or with it, whether it runs there or not. So under
constant facts the cheapest host stays the cheapest once the VM is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import Enum

from controller_bridge.follow.facts import MIB, Host, Limits, Situation


class Policy(Enum):
    NEAREST = "nearest"
    """Fewest links between the VM and its clients, each counted by its traffic."""
    LOAD = "load"
    """The host that is least loaded with the VM on it."""
    PACK = "pack"
    """The host that is most loaded without it: others get empty."""


@dataclass(frozen=True)
class Load:
    """In percent: of the processors, and of the memory that is not available."""

    cpu_percent: float
    memory_percent: float

    @property
    def percent(self) -> float:
        """What runs out first counts."""
        return max(self.cpu_percent, self.memory_percent)


@dataclass(frozen=True)
class Rating:
    """``cost``: hops for ``nearest``, percent for the others; infinite: some client is out of its reach."""

    host: str
    cost: float
    with_vm: Load
    against: str = ""
    """Why the VM cannot come here; empty: nothing."""
    hops: Mapping[str, int] = field(default_factory=dict)
    """To the clients that count."""


def counted(situation: Situation) -> dict[str, float]:
    """The clients that have traffic and that any host reaches, with their share of it (0 to 1)."""
    ways = [situation.hops.get(host, {}) for host in situation.hosts]
    rates = {
        client: rate
        for client, rate in situation.traffic.items()
        if rate > 0 and any(client in way for way in ways)
    }
    largest = max(rates.values(), default=1.0)
    scaled = {
        client: rate / largest for client, rate in rates.items()
    }  # their sum could be more than a float holds
    total = math.fsum(scaled.values())
    return {client: rate / total for client, rate in scaled.items()}


def rate(situation: Situation, policy: Policy, limits: Limits) -> dict[str, Rating]:
    """Every host's rating; nothing is against the one that the VM is on."""
    shares = counted(situation)
    reach = {name: _reach(situation, name, shares) for name in situation.hosts}
    reached = reach[situation.vm.host].keys()
    made = {}
    for name, hops in reach.items():
        without, with_vm = loads(situation, name)
        against = (
            ""
            if name == situation.vm.host
            else _against(situation, limits, name, with_vm, reached - hops.keys())
        )
        made[name] = Rating(name, _cost(policy, without, with_vm, shares, hops), with_vm, against, hops)
    return made


def _reach(situation: Situation, name: str, shares: Mapping[str, float]) -> dict[str, int]:
    return {client: hops for client, hops in situation.hops.get(name, {}).items() if client in shares}


def _cost(
    policy: Policy, without: Load, with_vm: Load, shares: Mapping[str, float], hops: Mapping[str, int]
) -> float:
    if policy is Policy.LOAD:
        return with_vm.percent
    if policy is Policy.PACK:
        return 100.0 - without.percent
    return math.fsum(share * hops.get(client, math.inf) for client, share in shares.items())


def _against(situation: Situation, limits: Limits, name: str, with_vm: Load, lost: Set[str]) -> str:
    """A host that would cut off a client is none; nor one without room."""
    if lost:
        return f"no way to {', '.join(sorted(lost))}"
    left = situation.hosts[name].memory_available_bytes - situation.vm.memory_bytes
    if left < limits.memory_spare_bytes:
        return f"no room: {left / MIB:.0f} MiB of memory would be left, {limits.memory_spare_bytes / MIB:.0f} MiB are asked for"
    if with_vm.cpu_percent > limits.cpu_most_percent:
        return f"no room: its processors would be {with_vm.cpu_percent:.1f} % busy, {limits.cpu_most_percent:.1f} % are allowed"
    return ""


def loads(situation: Situation, name: str) -> tuple[Load, Load]:
    """Of a host without the VM and with it, wherever it runs now."""
    host, vm = situation.hosts[name], situation.vm
    share = 100.0 * vm.cpus_busy / host.cpus
    here = name == vm.host
    cpu = (
        (max(0.0, host.cpu_percent - share), host.cpu_percent)
        if here
        else (host.cpu_percent, host.cpu_percent + share)
    )
    free = host.memory_available_bytes
    frees = (
        (min(free + vm.memory_bytes, host.memory_total_bytes), free)
        if here
        else (free, free - vm.memory_bytes)
    )
    without, with_vm = (Load(one, _taken(host, left)) for one, left in zip(cpu, frees, strict=True))
    return without, with_vm


def _taken(host: Host, free_bytes: int) -> float:
    return 100.0 * (host.memory_total_bytes - free_bytes) / host.memory_total_bytes
