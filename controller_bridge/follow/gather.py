"""A situation, of what a daemon and the switches have said. Pure; the daemon's answers are in docs/follow.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller_bridge.follow.facts import Host, Situation, Vm
from controller_bridge.follow.places import Seen
from controller_bridge.follow.ways import hops
from controller_bridge.topology import Place, Topology
from vmnet.errors import PeerError, VmnetError

Json = Mapping[str, Any]
_MOST = 1 << 60


@dataclass(frozen=True)
class Traffic:
    """``other_bytes_per_s``: with addresses that are not told apart."""

    seen: tuple[Seen, ...] = ()
    other_bytes_per_s: float = 0.0


@dataclass(frozen=True)
class Map:
    """The fabric: where hosts and clients are. ``names``: of the clients' ports, for people. ``unknown``: clients' addresses, and why
    nobody knows. ``notes``: what else is amiss."""

    topology: Topology
    hosts: Mapping[str, Place] = field(default_factory=dict)
    clients: Mapping[str, Place] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gathered:
    """``situation.traffic`` has only clients whose place is known; ``places`` names their ports. ``notes``: lines on what is unknown.

    ``now_s`` and ``moved_s`` (None: not that the daemon knows) are by the daemon's clock.
    """

    situation: Situation
    places: Mapping[str, str]
    notes: tuple[str, ...]
    now_s: float
    moved_s: float | None


def elsewhere(facts: Json) -> str | None:
    """The host that the VM is on, if it is not the daemon's own. PeerError if the answer makes no sense."""
    vm, here = facts.get("vm"), facts.get("host")
    if not isinstance(vm, dict) or not isinstance(vm.get("host"), str) or not isinstance(here, str):
        raise _odd("facts")
    return None if vm["host"] == here else vm["host"]


def traffic(answer: Json) -> Traffic:
    """PeerError if the answer makes no sense."""
    try:
        seen = tuple(
            Seen(str(one["address"]), bytes.fromhex(one["mac"].replace(":", "")), _number(one["bytes_per_s"]))
            for one in answer["addresses"]
        )
        if any(len(one.mac) != 6 for one in seen):
            raise ValueError
        return Traffic(seen, _number(answer["other_bytes_per_s"]))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise _odd("traffic") from None


def gather(facts: Json, traffic: Traffic, known: Map | None) -> Gathered:
    """``known``: None if there is no fabric to ask. PeerError if the daemon's answer makes no sense."""
    try:
        said = facts["vm"]
        vm = Vm(
            str(said["name"]), str(said["host"]), _whole(said["memory_bytes"]), _number(said["cpus_busy"])
        )
        hosts = {str(name): _host(one) for name, one in facts["hosts"].items()}
        now_s = _number(facts["t"])
        moved_s = None if said["moved"] is None else min(_number(said["moved"]), now_s)
        missing = {str(name): str(why) for name, why in facts["missing"].items()}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, VmnetError):
        raise _odd("facts") from None
    placed = known.clients if known is not None else {}
    ways = hops(known.topology, _among(known.hosts, hosts), placed) if known is not None else {}
    rates = {one.address: one.bytes_per_s for one in traffic.seen if one.address in placed}
    notes = tuple(_notes(missing, hosts, traffic, known))
    names = known.names if known is not None else {}
    return Gathered(Situation(vm, hosts, ways, rates), names, notes, now_s, moved_s)


def _among(places: Mapping[str, Place], hosts: Mapping[str, Host]) -> dict[str, Place]:
    return {name: place for name, place in places.items() if name in hosts}


def _notes(
    missing: Mapping[str, str], hosts: Mapping[str, Host], traffic: Traffic, known: Map | None
) -> list[str]:
    found = [f"{name} is left out: {why}" for name, why in missing.items()]
    if known is None:
        return found
    found += [
        f"it is not known where {name} is: write it in [hosts] of the fabric's file"
        for name in hosts - known.hosts.keys()
    ]
    found += [
        f"{one.address} does not count ({one.bytes_per_s:.0f} B/s): {known.unknown[one.address]}"
        for one in traffic.seen
        if one.address in known.unknown
    ]
    if traffic.other_bytes_per_s > 0:
        found.append(
            f"{traffic.other_bytes_per_s:.0f} B/s do not count: with too many addresses to tell them apart"
        )
    return [*found, *known.notes]


def _host(said: Json) -> Host:
    return Host(
        _number(said["cpu_percent"]),
        _whole(said["cpus"]),
        _whole(said["memory_available_bytes"]),
        _whole(said["memory_total_bytes"]),
    )


def _whole(value: object) -> int:
    """ValueError if it is no whole number, or more than a machine has."""
    if type(value) is not int or value > _MOST:
        raise ValueError(value)
    return value


def _number(value: object) -> float:
    """ValueError if it is none, or below 0."""
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:  # type: ignore[arg-type, operator]
        raise ValueError(value)
    return float(value)  # type: ignore[arg-type]


def _odd(what: str) -> PeerError:
    return PeerError(
        f"the daemon's answer to '{what}' makes no sense", "are daemon and command of one version?"
    )
