"""What another host tells of a router's FIB: as our own code writes it, or not at all."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from dom0.fib import address, from_peer, marks, neighbour, nexthop, route, rule
from dom0.fib.message import (
    DELADDR,
    DELNEIGH,
    DELNEXTHOP,
    DELROUTE,
    NEWADDR,
    NEWLINK,
    NEWNEIGH,
    NEWNEXTHOP,
    NEWROUTE,
    NEWRULE,
    MalformedError,
    Patched,
    attribute,
    message,
)

MARK = marks.mark(3)
GATEWAY = ip_address("10.0.0.2").packed


def a_route(kind: int = NEWROUTE, protocol: int = MARK, table: int = 254, extra: bytes = b"") -> bytes:
    fixed = struct.pack("=BBBBBBBBI", 2, 8, 0, 0, table, protocol, 0, 1, 0)
    body = (
        attribute(1, bytes((7, 0, 0, 0))) + attribute(5, GATEWAY) + attribute(4, struct.pack("=I", 2)) + extra
    )
    return message(kind, 0, fixed + body)


def a_next_hop(kind: int = NEWNEXTHOP, protocol: int = MARK) -> bytes:
    fixed = struct.pack("=BBBBI", 2, 0, protocol, 0, 0)
    return message(
        kind,
        0,
        fixed
        + attribute(1, struct.pack("=I", 7))
        + attribute(5, struct.pack("=I", 2))
        + attribute(6, GATEWAY),
    )


def an_address(kind: int = NEWADDR, index: int = 2) -> bytes:
    return message(
        kind, 0, struct.pack("=BBBBI", 2, 24, 0, 0, index) + attribute(1, GATEWAY) + attribute(2, GATEWAY)
    )


def a_neighbour(kind: int = NEWNEIGH, index: int = 2, state: int = 0x80) -> bytes:
    fixed = struct.pack("=BBHiHBB", 2, 0, 0, index, state, 0, 0)
    return message(kind, 0, fixed + attribute(1, GATEWAY) + attribute(2, bytes((2, 0, 0, 0, 0, 1))))


def a_rule() -> bytes:
    return message(
        NEWRULE,
        0,
        struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 100, 0, 0, 1, 0) + attribute(6, struct.pack("=I", 50)),
    )


def ours() -> list[Patched]:
    """What hosts send each other."""
    found_rule, found_address, found_neighbour = (
        rule.parse(a_rule()), address.parse(an_address()), neighbour.parse(a_neighbour()),
    )  # fmt: skip
    made = [
        route.from_router(a_route(protocol=196), 3),
        route.from_router(a_route(DELROUTE, 196), 3),
        route.deletion(a_route()),
        nexthop.from_router(a_next_hop(protocol=196), 3),
        nexthop.from_router(a_next_hop(DELNEXTHOP, 196), 3),
        Patched(found_rule.install, found_rule.key, True),
        Patched(found_rule.remove, found_rule.key, False),
        address.patched(found_address, True),
        address.patched(found_address, False),
        found_neighbour.patched(True),
        found_neighbour.patched(False),
        Patched(neighbour.from_dump(a_neighbour(state=0x4), 0) or b"", found_neighbour.key, True),
    ]
    return [one for one in made if one is not None]


@pytest.mark.parametrize("one", ours(), ids=lambda one: f"{one.message[4]}-{one.new}")
def test_what_a_host_of_ours_sends_is_taken_to_the_byte(one: Patched) -> None:
    again = from_peer.checked(one.message, 9)
    assert again.message == one.message
    assert (again.key, again.new) == (one.key, one.new)


@pytest.mark.parametrize(
    "bad",
    [
        a_route(extra=attribute(22, attribute(1, bytes(4))) + attribute(21, b"\1\0")),
        a_route(extra=attribute(4, bytes(4))),
        a_route(protocol=2),
        a_route(protocol=196),
        a_route(table=255),
        a_route(DELROUTE, 4),
        a_next_hop(protocol=4),
        message(NEWNEXTHOP, 0, bytes(3)),
        message(DELNEXTHOP, 0, bytes(8)),
        an_address(index=9),
        an_address(DELADDR, index=9),
        a_neighbour(index=9),
        a_neighbour(DELNEIGH, index=9),
        a_neighbour(state=0x20),
        message(NEWLINK, 0, bytes(16)),
        message(36, 0, bytes(20)),
        message(256 + NEWROUTE, 0, bytes(20)),
    ],
    ids=[
        "encapsulation", "twice", "the kernel's own", "unmarked", "local table", "deletes another's", "unmarked next hop", "short",
        "no id", "management address", "management address goes", "management neighbour", "its end", "unknown neighbour", "link",
        "queue", "high type",
    ],
)  # fmt: skip
def test_nothing_else_is(bad: bytes) -> None:
    with pytest.raises(MalformedError):
        from_peer.checked(bad, 9)


def test_generations_are_seen() -> None:
    assert [from_peer.generation_of(one.message) for one in ours()[:4]] == [3, None, None, 3]
