"""What FRR says about its sessions and routes, and what is missing in that. Pure; the answers are as FRR 8.4 gives them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BGP = "show bgp summary json"
OSPF = "show ip ospf interface json"
BFD = "show bfd peers json"
IPV4 = "show ip route summary json"
IPV6 = "show ipv6 route summary json"
OSPF_ROUTES = "show ip route ospf json"
VIEWS = (BGP, OSPF, BFD, IPV4, IPV6, OSPF_ROUTES)

View = Mapping[str, Any]
"""A command of ``VIEWS`` -> the answer."""


@dataclass(frozen=True)
class Expected:
    """What one router has to have learned of the others, and its kernel to have."""

    ipv4: int = 0
    ipv6: int = 0
    """How many routes by BGP."""
    loopbacks: tuple[str, ...] = ()
    """IPv4 prefixes by OSPF."""


def parse(answers: str) -> View:
    """From the answers to ``VIEWS``, one after the other. Raises ValueError when they are not that many JSON values."""
    decoder = json.JSONDecoder()
    found: dict[str, Any] = {}
    position = 0
    for command in VIEWS:
        while position < len(answers) and answers[position].isspace():
            position += 1
        found[command], position = decoder.raw_decode(answers, position)
    return found


def missing(view: View, expected: Expected) -> list[str]:
    """What is not up or not learned yet."""
    lacks = [f"BGP {peer} is {state}" for peer, state in bgp_states(view) if state != "Established"]
    lacks += [f"OSPF has no full neighbour on {port}" for port, full in ospf_full(view) if not full]
    lacks += [f"BFD {peer} is {state}" for peer, state in bfd_states(view) if state != "up"]
    lacks += [f"no route to {one} by OSPF" for one in expected.loopbacks if not _in_use(view, one)]
    for command, wanted in ((IPV4, expected.ipv4), (IPV6, expected.ipv6)):
        if (there := installed(view[command])) < wanted:
            lacks.append(f"{there} of {wanted} routes ({command.split()[1]}) by BGP")
    if not bgp_states(view):
        lacks.append("BGP has no neighbours")
    return lacks


def bgp_states(view: View) -> list[tuple[str, str]]:
    """Each neighbour with the state of its session."""
    families = [one for one in view[BGP].values() if isinstance(one, dict)]
    return [(name, peer["state"]) for one in families for name, peer in one.get("peers", {}).items()]


def ospf_full(view: View) -> Iterator[tuple[str, int]]:
    """Each interface that OSPF looks for neighbours on, with how many it is adjacent to."""
    for name, port in view[OSPF].get("interfaces", {}).items():
        if port.get("networkType") != "LOOPBACK" and "timerPassiveIface" not in port:
            yield name, int(port.get("nbrAdjacentCount", 0))


def bfd_states(view: View) -> list[tuple[str, str]]:
    return [(peer["peer"], peer["status"]) for peer in view[BFD]]


def _in_use(view: View, prefix: str) -> bool:
    return any(route.get("installed") for route in view[OSPF_ROUTES].get(prefix, ()))


def installed(summary: Mapping[str, Any]) -> int:
    """Routes that BGP learned of other ASes and the kernel has."""
    return sum(kind["fib"] for kind in summary.get("routes", ()) if kind["type"] == "ebgp")
