"""Messages of a router, patched for the namespace's kernel; scapy-free: bytes are built here by hand from linux/rtnetlink.h."""

from __future__ import annotations

import struct
from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.fib import address, link, marks, neighbour, nexthop, route, rule
from dom0.fib.framing import Deframer, frame
from dom0.fib.message import (
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
    RefusedMessageError,
    attribute,
    attributes,
    message,
)
from dom0.fib.templates import Batch, Templates


def make_route(
    kind: int = NEWROUTE,
    dst: bytes = bytes((7, 0, 0, 0)),
    protocol: int = 196,
    flags: int = 0,
    type_: int = 1,
    **extra: bytes,
) -> bytes:
    family = 2 if len(dst) == 4 else 10
    body = struct.pack("=BBBBBBBBI", family, 8, 0, 0, 254, protocol, 0, type_, flags) + attribute(1, dst)
    body += attribute(6, struct.pack("=I", 20))
    body += b"".join(attribute(int(name[1:]), value) for name, value in extra.items())
    return message(kind, 0x501, body)


def found(data: bytes) -> dict[int, bytes]:
    return dict(attributes(data, 28))


def test_a_route_gets_mark_flags_and_the_id_of_its_generation() -> None:
    patched = route.from_router(make_route(_30=struct.pack("=I", 20)), 3)
    assert patched is not None
    assert patched.new
    assert patched.message[route.PROTOCOL_AT] == marks.mark(3)
    assert struct.unpack_from("=H", patched.message, 6) == (0x501,)
    assert found(patched.message)[30] == struct.pack("=I", 20 | 3 << 28)


def test_next_hops_told_twice_are_told_once() -> None:
    hops = attribute(9, struct.pack("=HBBi", 8, 1, 0, 10))[4:]
    patched = route.from_router(make_route(_4=bytes(4), _5=bytes(4), _9=hops, _30=struct.pack("=I", 5)), 0)
    assert patched is not None
    assert not {4, 5, 9} & found(patched.message).keys()


def test_dead_next_hops_are_cleaned() -> None:
    hop = struct.pack("=HBBi", 16, 0x1 | 0x4 | 0x10, 0, 10) + attribute(5, bytes((10, 9, 0, 2)))
    patched = route.from_router(make_route(_9=hop), 0)
    assert patched is not None
    assert found(patched.message)[9][2] == 0x4


def test_a_deletion_matches_whatever_holds_the_prefix() -> None:
    patched = route.from_router(make_route(DELROUTE, _5=bytes((10, 9, 0, 2)), _30=struct.pack("=I", 5)), 2)
    assert patched is not None
    assert not patched.new
    assert patched.message[route.PROTOCOL_AT] == 0
    assert found(patched.message).keys() == {1, 6}


def test_one_hop_of_an_ipv6_route_goes_alone() -> None:
    gateway = bytes.fromhex("fe80" + "00" * 13 + "01")
    patched = route.from_router(make_route(DELROUTE, bytes(16), _5=gateway), 2)
    assert patched is not None
    assert found(patched.message)[5] == gateway


@pytest.mark.parametrize(
    "data",
    [
        make_route(protocol=2),
        make_route(protocol=1),
        make_route(type_=2),
        make_route(type_=5),
        make_route(flags=0x200),
        make_route(_15=struct.pack("=I", 255)),
    ],
    ids=["kernel", "redirect", "local", "multicast", "cloned", "local table"],
)
def test_what_the_kernel_makes_itself_is_not_copied(data: bytes) -> None:
    assert route.from_router(data, 0) is None


def test_what_would_forward_otherwise_is_refused() -> None:
    with pytest.raises(RefusedMessageError):
        route.from_router(make_route(_22=bytes(4)), 0)
    with pytest.raises(RefusedMessageError):
        route.from_router(make_route(_30=struct.pack("=I", 1 << 28)), 0)


@pytest.mark.parametrize(
    "bad", [make_route(_5=bytes(5)), make_route(_9=bytes(3)), make_route(dst=bytes(4), _1=bytes(4))]
)
def test_wrong_lengths_end_the_session(bad: bytes) -> None:
    with pytest.raises(MalformedError):
        route.from_router(bad, 0)


def test_a_group_names_members_of_its_generation() -> None:
    group = struct.pack("=IBBH", 19, 1, 0, 0) + struct.pack("=IBBH", 21, 0, 9, 9)
    body = struct.pack("=BBBBI", 0, 0, 11, 0, 0) + attribute(1, struct.pack("=I", 20)) + attribute(2, group)
    patched = nexthop.from_router(message(NEWNEXTHOP, 0, body), 1)
    assert patched.message[nexthop.PROTOCOL_AT] == marks.mark(1)
    inner = dict(attributes(patched.message, 24))
    assert struct.unpack("=IBBHIBBH", inner[2]) == (19 | 1 << 28, 1, 0, 0, 21 | 1 << 28, 0, 0, 0)
    gone = nexthop.from_router(message(DELNEXTHOP, 0, body), 1)
    assert not gone.new
    assert gone.key == patched.key


def test_an_address_is_there_at_once() -> None:
    body = (
        struct.pack("=BBBBI", 10, 64, 0x40, 0, 10)
        + attribute(1, bytes(15) + b"\1")
        + attribute(8, struct.pack("=I", 0x40))
    )
    parsed = address.parse(message(NEWADDR, 0, body))
    assert parsed.interface == ip_interface("::1/64")
    assert dict(attributes(parsed.install, 24))[8] == struct.pack("=I", 0x02)


def test_a_rule_is_the_same_whoever_made_it() -> None:
    fixed = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 0, 0, 1, 0)
    ours = rule.parse(message(NEWRULE, 0, fixed + attribute(21, b"\2") + attribute(14, b"\xff" * 4)))
    other = rule.parse(message(NEWRULE, 0, fixed + attribute(21, b"\3")))
    assert ours.key == other.key
    assert ours.ours
    assert not other.ours


def test_a_neighbour_is_reachable_elsewhere() -> None:
    body = struct.pack("=BBHiHBB", 2, 0, 0, 10, 0x04, 0, 1) + attribute(1, bytes(4)) + attribute(2, bytes(6))
    made = neighbour.from_dump(message(NEWNEIGH, 0, body), 105)
    assert made is not None
    assert struct.unpack_from("=H", made, 24) == (0x02,)
    assert neighbour.from_dump(message(NEWNEIGH, 0, body), 10) is None


def test_a_link_is_reported() -> None:
    body = (
        struct.pack("=BxHiII", 0, 1, 10, 1, 0)
        + attribute(3, b"up0\0")
        + attribute(4, struct.pack("=I", 1400))
    )
    assert link.parse(message(NEWLINK, 0, body + attribute(1, bytes(6)))) == link.VmLink(
        10, "up0", "00:00:00:00:00:00", 1400, True
    )


@given(st.integers(0, 15), st.sets(st.integers(0, 15)))
def test_a_generation_is_one_of_which_nothing_is_left(current: int, held: set[int]) -> None:
    chosen = marks.following(current, held)
    assert chosen is None if len(held) == 16 else chosen not in held


ONE = make_route()
TWO = make_route(DELROUTE, bytes((8, 0, 0, 0)))


@given(st.lists(st.integers(1, 200), max_size=30))
def test_frames_come_whole_wherever_they_are_split(cuts: list[int]) -> None:
    stream = frame(ONE) + struct.pack("!BBH", 1, 1, 4 + len(TWO + ONE)) + TWO + ONE + frame(TWO)
    deframer = Deframer()
    got: list[bytes] = []
    for size in [*cuts, len(stream)]:
        got += deframer.feed(stream[:size])
        stream = stream[size:]
    assert got == [ONE, TWO, ONE, TWO]
    assert deframer.rest == b""


@pytest.mark.parametrize("cut", range(1, len(frame(ONE))))
def test_a_frame_of_two_reads(cut: int) -> None:
    deframer = Deframer()
    assert deframer.feed(frame(ONE)[:cut]) == []
    again = Deframer(deframer.rest)
    assert again.feed(frame(ONE)[cut:]) == [ONE]


def patch(data: bytes) -> Patched | None:
    return route.from_router(data, 5)


PREFIXES = st.sampled_from(
    [bytes((n, 0, 0, 0)) for n in range(1, 5)] + [bytes((n,)) + bytes(15) for n in range(1, 3)]
)


@given(st.lists(st.tuples(st.booleans(), PREFIXES), max_size=30))
def test_templates_give_what_the_long_way_gives(events: list[tuple[bool, bytes]]) -> None:
    """And coalescing leaves the same table, without a moment at which a route that is kept is not there."""
    messages = [make_route(NEWROUTE if new else DELROUTE, dst) for new, dst in events]
    batch = Batch()
    templates = Templates(patch)
    templates.feed(messages, batch)
    whole = [one.message for data in messages if (one := patch(data))]
    assert [one for one in batch.messages if one] == [
        one
        for place, one in enumerate(whole)
        if events[place][0] or not _last_deletion_before_new(events, place)
    ]
    assert len(batch.messages) == len(batch.keys)


def _last_deletion_before_new(events: list[tuple[bool, bytes]], place: int) -> bool:
    """The next event about the same prefix makes it again."""
    later = [new for new, dst in events[place + 1 :] if dst == events[place][1]]
    return bool(later) and later[0]
