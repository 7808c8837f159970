"""Changes to a host, as data: each says what it is in words and how it is undone. Pure.

These go into the journal before they are made. What makes them is :mod:`dom0.executor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    TUNNEL = "tunnel"
    NO_TUNNEL = "no-tunnel"
    GATE = "gate"
    NO_GATE = "no-gate"
    WIRE = "wire"
    NO_WIRE = "no-wire"
    QUEUE = "queue"
    STEER = "steer"
    NO_STEER = "no-steer"
    SUSPEND = "suspend"
    RESUME = "resume"
    JOIN = "join"
    LEAVE = "leave"
    REROUTE = "reroute"
    REROUTE_BACK = "reroute-back"


_WORDS = {
    Kind.TUNNEL: "make tunnel {target}",
    Kind.NO_TUNNEL: "remove tunnel {target}",
    Kind.GATE: "put the gate on {target}",
    Kind.NO_GATE: "take the gate off {target}",
    Kind.WIRE: "wire what comes in at {target} to the tunnel",
    Kind.NO_WIRE: "unwire {target}",
    Kind.QUEUE: "let {target} queue {value} packets",
    Kind.STEER: "send all that is for {target} by its first queue",
    Kind.NO_STEER: "let the kernel choose a queue of {target}",
    Kind.SUSPEND: "stop VM {target}",
    Kind.RESUME: "resume VM {target}, if it is here and paused",
    Kind.JOIN: "make {target} a port of bridge {value}",
    Kind.LEAVE: "take {target} off bridge {value}",
    Kind.REROUTE: "let the fabric send to the new host (migration {target})",
    Kind.REROUTE_BACK: "let the fabric send to the old host (migration {target})",
}
_INVERSE = {
    Kind.TUNNEL: Kind.NO_TUNNEL,
    Kind.GATE: Kind.NO_GATE,
    Kind.WIRE: Kind.NO_WIRE,
    Kind.STEER: Kind.NO_STEER,
    Kind.SUSPEND: Kind.RESUME,
    Kind.JOIN: Kind.LEAVE,
    Kind.REROUTE: Kind.REROUTE_BACK,
}


@dataclass(frozen=True)
class Action:
    """``target``: a device, a VM's uuid, or a migration's id. ``value``: see :data:`_WORDS`, or what a fabric has to know.

    ``before``: what a QUEUE's value was.
    """

    kind: Kind
    target: str
    value: str = ""
    before: str = ""

    def describe(self) -> str:
        return _WORDS[self.kind].format(target=self.target, value=self.value)

    def inverse(self) -> Action | None:
        """The action that puts things back as they were; it does nothing where there is nothing to put back."""
        if self.kind is Kind.QUEUE:
            return Action(Kind.QUEUE, self.target, self.before, self.value)
        kind = _INVERSE.get(self.kind)
        return None if kind is None else Action(kind, self.target, self.value)

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind.value, "target": self.target, "value": self.value, "before": self.before}

    @classmethod
    def from_json(cls, value: Mapping[str, str]) -> Action:
        """ValueError or KeyError if ``value`` is none of ours."""
        return cls(Kind(value["kind"]), value["target"], value.get("value", ""), value.get("before", ""))
