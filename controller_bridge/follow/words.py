"""A decision in words, with its numbers: what would be gained, why this host, why not the others. Pure text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller_bridge.follow.facts import Limits, Situation
from controller_bridge.follow.rating import Policy, Rating


@dataclass(frozen=True)
class Chosen:
    """``best``: of those that can take the VM, or where it is; ``wished``: the best of all others, whether or not it can."""

    policy: Policy
    here: Rating
    best: Rating
    wished: Rating | None
    asked: float
    since_s: float | None
    """Since the VM moved last."""


def explain(
    verdict: str,
    situation: Situation,
    chosen: Chosen,
    limits: Limits,
    ratings: Mapping[str, Rating],
    shares: Mapping[str, float],
) -> Iterator[str]:
    if chosen.policy is Policy.NEAREST and not shares:
        yield f"{situation.vm.name} stays on {chosen.here.host}: no client that can be reached has traffic"
    else:
        yield _headline(verdict, situation, chosen, limits)
    if chosen.policy is Policy.NEAREST:
        yield from _clients(situation, chosen, shares)
    named = {chosen.here.host} if verdict == "refused" else {chosen.here.host, chosen.best.host}
    for name in sorted(ratings.keys() - named):
        yield _other(chosen, ratings[name])


def _headline(verdict: str, situation: Situation, chosen: Chosen, limits: Limits) -> str:
    vm, here, best = situation.vm.name, chosen.here, chosen.best
    better = f"{_place(chosen, best)} instead of {_value(chosen, here)} on {here.host}"
    asked = f"at least {_amount(chosen, chosen.asked)} is asked for"
    if verdict == "move":
        return f"{vm} should move from {here.host} to {best.host}: {better}, a gain of {_gain(chosen, best)} ({asked})"
    if verdict == "wait":
        assert chosen.since_s is not None
        left = limits.pause_s - chosen.since_s
        pause = f"it moved {chosen.since_s:.0f} s ago and may again in {left:.0f} s"
        return f"{vm} should move from {here.host} to {best.host}, but {pause}: {better}, a gain of {_gain(chosen, best)}"
    if verdict == "refused":
        assert chosen.wished is not None
        wished = f"{_place(chosen, chosen.wished)} would be a gain of {_gain(chosen, chosen.wished)}"
        return f"{vm} has to stay on {here.host} ({_value(chosen, here)}): {wished}, but no such host can take it"
    if best is here:
        return f"{vm} stays on {here.host} ({_value(chosen, here)}): no other host that can take it is better"
    return f"{vm} stays on {here.host}: {better} would be a gain of only {_gain(chosen, best)}; {asked}"


def _clients(situation: Situation, chosen: Chosen, shares: Mapping[str, float]) -> Iterator[str]:
    for client in sorted(shares, key=lambda one: (-shares[one], one)):
        there, here = chosen.best.hops.get(client), chosen.here.hops.get(client)
        ways = f"{_hops(there)} from {chosen.best.host}"
        if chosen.best is not chosen.here:
            ways += f", {_hops(here)} from {chosen.here.host}"
        yield f"{client} has {100 * shares[client]:.1f} % of the traffic ({situation.traffic[client]:.0f} B/s): {ways}"
    for client in sorted(situation.traffic.keys() - shares.keys()):
        silent = situation.traffic[client] == 0
        yield f"{client} does not count: {'it has no traffic' if silent else 'no host has a way to it'}"


def _other(chosen: Chosen, one: Rating) -> str:
    if one.against:
        return f"not {one.host} ({_value(chosen, one)}): {one.against}"
    if one is chosen.best:
        return f"not {one.host}: {_value(chosen, one)} would be a gain of only {_gain(chosen, one)}"
    if one.cost == chosen.best.cost:
        return f"not {one.host}: {_value(chosen, one)}, and so no better than {chosen.best.host}"
    if one.cost == math.inf:
        return f"not {one.host}: {_value(chosen, one)}"
    return f"not {one.host}: {_value(chosen, one)}, {_amount(chosen, one.cost - chosen.best.cost)} worse than {chosen.best.host}"


def _place(chosen: Chosen, one: Rating) -> str:
    return f"{_value(chosen, one)} on {one.host}"


def _value(chosen: Chosen, one: Rating) -> str:
    if one.cost == math.inf:
        return "a client out of reach"
    if chosen.policy is Policy.NEAREST:
        return f"{one.cost:.2f} hops on average"
    if chosen.policy is Policy.LOAD:
        return f"{one.cost:.1f} % loaded with it"
    return f"{100 - one.cost:.1f} % loaded without it"


def _gain(chosen: Chosen, one: Rating) -> str:
    return _amount(chosen, chosen.here.cost - one.cost)


def _amount(chosen: Chosen, cost: float) -> str:
    if cost == math.inf:
        return "more than can be counted"
    return f"{cost:.2f} hops" if chosen.policy is Policy.NEAREST else f"{cost:.1f} percentage points"


def _hops(number: int | None) -> str:
    return "no way" if number is None else f"{number} hop{'s' * (number != 1)}"
