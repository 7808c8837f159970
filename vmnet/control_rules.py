"""Which transit packets of a router go to its VM instead of being forwarded here: the configurable part of the control table. Pure.

A rule is ``[PROTOCOL [PORT[-PORT]]] [to PREFIX]``: "ospf", "udp 5000-5010", "tcp 179 to 192.0.2.0/24", "to 2001:db8::/32". The rows
that always hold (the router's own addresses, multicast, ARP, what is no IP) are in :mod:`dom0.router.split_program`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "eigrp": 88,
    "ospf": 89,
    "pim": 103,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": 132,
}
_WITH_PORTS = (6, 17, 132)
MOST_RULES = 32
"""The kernel's program looks at each of them for every packet."""


@dataclass(frozen=True)
class ControlRule:
    """None: any. ``ports``: destination ports, first and last."""

    protocol: int | None = None
    ports: tuple[int, int] | None = None
    prefix: IPv4Network | IPv6Network | None = None


def parse(text: str) -> ControlRule:
    """ValueError, with what is wrong with it, if ``text`` is no rule."""
    words, found, prefix = text.split(), "", None
    if len(words) >= 2 and words[-2] == "to":
        prefix = _prefix(words[-1])
        words = words[:-2]
    if len(words) > 2 or not (words or prefix):
        raise ValueError(f"{text!r} is not '[PROTOCOL [PORT[-PORT]]] [to PREFIX]'")
    found = words[0] if words else ""
    protocol = _protocol(found) if found else None
    ports = _ports(words[1], protocol) if len(words) == 2 else None
    return ControlRule(protocol, ports, prefix)


def parse_all(texts: Iterable[str]) -> tuple[ControlRule, ...]:
    """ValueError for the first that is none, or if there are too many."""
    rules = tuple(parse(one) for one in texts)
    if len(rules) > MOST_RULES:
        raise ValueError(f"{len(rules)} rules are more than {MOST_RULES}")
    return rules


def _prefix(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"'to {text}': {error}") from None


def _protocol(word: str) -> int:
    number = PROTOCOLS.get(word, int(word) if word.isascii() and word.isdigit() and len(word) <= 3 else -1)
    if not 0 <= number <= 255:
        raise ValueError(f"{word!r} is no IP protocol (a number, or one of {', '.join(PROTOCOLS)})")
    return number


def _ports(word: str, protocol: int | None) -> tuple[int, int]:
    if protocol not in _WITH_PORTS:
        raise ValueError(f"ports ({word!r}) are for tcp, udp and sctp")
    first, dash, last = word.partition("-")
    ends = [first, last if dash else first]
    if not all(one.isascii() and one.isdigit() and len(one) <= 5 and int(one) <= 65535 for one in ends):
        raise ValueError(f"{word!r} is no port, or range of ports")
    low, high = int(ends[0]), int(ends[1])
    if low > high:
        raise ValueError(f"{word!r} ends before it begins")
    return low, high
