"""Whether a VM should move, and where to. Pure: the clock is an argument, and when to ask again an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from controller_bridge.follow import words
from controller_bridge.follow.facts import Limits, Situation
from controller_bridge.follow.rating import Policy, Rating, counted, rate


class Verdict(Enum):
    STAY = "stay"
    MOVE = "move"
    WAIT = "wait"
    """It should move, and has moved too lately."""
    REFUSED = "refused"
    """It should move, and no host that is better enough can take it."""


@dataclass(frozen=True)
class Decision:
    verdict: Verdict
    host: str
    """Where the VM is to be now: elsewhere only for MOVE."""
    best: str
    """The best host for it that can take it; where it is if none is better."""
    gain: float
    """What ``best`` costs less than where it is: hops or percentage points."""
    again_s: float | None
    """WAIT: when the same facts will mean MOVE, by the caller's clock."""
    ratings: Mapping[str, Rating]
    why: tuple[str, ...]
    """For people, a line each: what, and why not the other hosts."""


def decide(
    situation: Situation, policy: Policy, limits: Limits, *, now_s: float, moved_s: float | None = None
) -> Decision:
    """``moved_s``: when the VM moved last, by the same clock as ``now_s``; None: not that anybody knew."""
    ratings = rate(situation, policy, limits)
    here = ratings[situation.vm.host]
    asked = limits.gain_hops if policy is Policy.NEAREST else limits.gain_percent
    able = _cheapest(one for one in ratings.values() if not one.against and one is not here)
    wished = _cheapest(one for one in ratings.values() if one is not here)
    gain = _gain(here, able)
    again_s = None if moved_s is None else moved_s + limits.pause_s
    if able is not None and gain >= asked:
        verdict = Verdict.MOVE if again_s is None or now_s >= again_s else Verdict.WAIT
    else:
        verdict = Verdict.REFUSED if _gain(here, wished) >= asked else Verdict.STAY
    best = able if able is not None and gain > 0 else here
    chosen = words.Chosen(policy, here, best, wished, asked, None if moved_s is None else now_s - moved_s)
    return Decision(
        verdict,
        best.host if verdict is Verdict.MOVE else here.host,
        best.host,
        max(0.0, gain),
        again_s if verdict is Verdict.WAIT else None,
        ratings,
        tuple(words.explain(verdict.value, situation, chosen, limits, ratings, counted(situation))),
    )


def _cheapest(ratings: Iterable[Rating]) -> Rating | None:
    """Among equals the least loaded, and then the first by name: the same facts give the same host."""
    return min(ratings, key=lambda one: (one.cost, one.with_vm.percent, one.host), default=None)


def _gain(here: Rating, other: Rating | None) -> float:
    if other is None or other.cost == here.cost:  # both may be infinite
        return 0.0
    return here.cost - other.cost
