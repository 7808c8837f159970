"""Which sessions of a router went down between two looks at it, and how many routes it has. Pure; the answers are FRR 8.4's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vmnet.lab import sessions

COUNTERS = "show bfd peers counters json"
NEIGHBOURS = "show ip ospf neighbor json"
ASKED = (COUNTERS, sessions.BFD, sessions.BGP, NEIGHBOURS, sessions.IPV4, sessions.IPV6)
PROTOCOLS = ("bfd", "bgp", "ospf")
_COARSE_MS = 1500
"""FRR tells a session's age in whole seconds, BFD's and BGP's."""


@dataclass(frozen=True, slots=True)
class Session:
    """``downs``: how often it went down so far; None where FRR does not count. ``up_ms``: how long it is up, None if it is not."""

    downs: int | None
    up_ms: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """``sessions``: by protocol and peer. ``at_s``: monotonic. ``routes``: learned by BGP and in the kernel, IPv4 and IPv6."""

    at_s: float
    sessions: Mapping[tuple[str, str], Session]
    routes: int


def look(answers: Mapping[str, Any], at_s: float) -> Look:
    """From FRR's answers to ``ASKED``."""
    routes = sum(sessions.installed(answers[one]) for one in (sessions.IPV4, sessions.IPV6))
    found = [*_bfd(answers), *_bgp(answers), *_ospf(answers)]
    return Look(at_s, dict(found), routes)


def _bfd(answers: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Session]]:
    downs = {peer["peer"]: int(peer["session-down"]) for peer in answers[COUNTERS]}
    for peer in answers[sessions.BFD]:
        up_ms = int(peer["uptime"]) * 1000 if peer["status"] == "up" else None
        yield ("bfd", peer["peer"]), Session(downs.get(peer["peer"]), up_ms)


def _bgp(answers: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Session]]:
    for family in answers[sessions.BGP].values():
        for name, peer in family.get("peers", {}).items() if isinstance(family, dict) else ():
            up_ms = int(peer["peerUptimeMsec"]) if peer["state"] == "Established" else None
            yield ("bgp", name), Session(int(peer["connectionsDropped"]), up_ms)


def _ospf(answers: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Session]]:
    for name, adjacencies in answers[NEIGHBOURS].get("neighbors", {}).items():
        for one in adjacencies:
            full = str(one["nbrState"]).startswith("Full")
            yield ("ospf", name), Session(None, int(one["upTimeInMsec"]) if full else None)


def flaps(before: Look, after: Look) -> dict[str, int]:
    """By protocol: how often sessions that were up went down. One that FRR does not count, or has forgotten, went down once."""
    elapsed_ms = (after.at_s - before.at_s) * 1000
    found = dict.fromkeys(PROTOCOLS, 0)
    for key, session in before.sessions.items():
        if session.up_ms is not None:
            found[key[0]] += _downs(session, after.sessions.get(key), elapsed_ms)
    return found


def _downs(before: Session, after: Session | None, elapsed_ms: float) -> int:
    if after is None or after.up_ms is None or after.up_ms < elapsed_ms - _COARSE_MS:
        return max(1, _counted(before, after))
    return max(0, _counted(before, after))


def _counted(before: Session, after: Session | None) -> int:
    return (
        (after.downs - before.downs) if after and before.downs is not None and after.downs is not None else 0
    )
