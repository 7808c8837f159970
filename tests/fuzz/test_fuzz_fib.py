"""What a hostile router sends: nothing crashes, and nothing but whitelisted messages of sound form is for the kernel."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dom0.fib import address, from_peer, link, marks, nexthop, route, rule, tcp_repair
from dom0.fib.fib import _patched
from dom0.fib.framing import MOST_BYTES, Deframer, frame
from dom0.fib.message import MalformedError, RefusedMessageError, attribute, attributes, message
from dom0.fib.templates import Batch, Templates
from vmnet.errors import PeerError

FIXED = {24: 12, 25: 12, 104: 8, 105: 8}
ATTRIBUTES = st.lists(st.tuples(st.integers(0, 32), st.binary(max_size=24)), max_size=6).map(
    lambda found: b"".join(attribute(kind, value) for kind, value in found)
)
LIKELY = st.builds(
    lambda kind, flags, fixed, dst, tail: message(kind, flags, fixed + dst + tail),
    st.sampled_from([*FIXED, 16, 18, 20, 32, 36, 44, 2]),
    st.integers(0, 0xFFFF),
    st.builds(
        lambda family, length, protocol, kind: struct.pack(
            "=BBBBBBBBI", family, length, 0, 0, 254, protocol, 0, kind, 0
        ),
        *(st.sampled_from([2, 10, 7]), st.integers(0, 130), st.integers(0, 255), st.integers(0, 12)),
    ),
    st.sampled_from(
        [
            b"",
            attribute(1, bytes(4)),
            attribute(1, bytes(16)),
            attribute(15, bytes(4)) + attribute(1, bytes(4)),
        ]
    ),
    st.one_of(ATTRIBUTES, st.binary(max_size=40)),
)
STREAM = st.one_of(
    st.binary(max_size=300),
    st.lists(LIKELY, max_size=8).map(lambda found: b"".join(frame(one) for one in found)),
)


def sound(one: bytes) -> None:
    """Raises if it is not what the kernel may get."""
    length, kind, flags = struct.unpack_from("=IHH", one)
    assert length == len(one)
    assert kind in FIXED
    assert flags in (0x1, 0x501)
    inner = list(attributes(one, 16 + FIXED[kind]))
    if kind == 24:
        assert one[route.PROTOCOL_AT] == marks.mark(9)
        assert {number for number, _ in inner} <= {1, 2, 4, 5, 6, 7, 8, 9, 11, 15, 18, 20, 30}
    if kind == 25:
        assert one[route.PROTOCOL_AT] == 0
    if kind in (104, 105):
        assert all(struct.unpack("=I", value)[0] >> 28 == 9 for number, value in inner if number == 1)


@settings(max_examples=400)
@given(STREAM, st.integers(1, 64))
def test_only_sound_messages_come_through(stream: bytes, step: int) -> None:
    deframer = Deframer()
    templates = Templates(lambda data: _patched(data, 9))
    batch = Batch()
    with contextlib.suppress(MalformedError):
        for at in range(0, len(stream), step):
            templates.feed(deframer.feed(stream[at : at + step]), batch)
            assert len(deframer.rest) <= MOST_BYTES
    for one in batch.messages:
        if one:
            sound(one)


@settings(max_examples=300)
@given(LIKELY, st.lists(st.tuples(st.integers(16, 80), st.integers(0, 255)), max_size=3))
def test_a_template_lets_nothing_through_that_the_long_way_would_not(
    data: bytes, damage: list[tuple[int, int]]
) -> None:
    """The same message, then a damaged one: what was learned of the first must not vouch for the second."""
    damaged = bytearray(data)
    for place, value in damage:
        if place < len(damaged):
            damaged[place] = value
    templates = Templates(lambda one: _patched(one, 9))
    for one in (data, bytes(damaged), data):
        assert told(lambda one=one: _by_templates(templates, one)) == told(lambda one=one: _long_way(one))


def told(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except MalformedError:
        return "malformed"


def _by_templates(templates: Templates, one: bytes) -> list[bytes]:
    batch = Batch()
    templates.feed([one], batch)
    return batch.messages


def _long_way(one: bytes) -> list[bytes]:
    try:
        found = _patched(one, 9)
    except RefusedMessageError:
        return []
    return [found.message] if found else []


@settings(max_examples=300)
@given(st.one_of(st.binary(min_size=16, max_size=120), LIKELY))
def test_parsers_of_an_agents_messages(data: bytes) -> None:
    for parse in (address.parse, rule.parse, link.parse, nexthop.from_dump, route.from_dump):
        with contextlib.suppress(MalformedError, RefusedMessageError):
            parse(data if len(data) >= 28 else data.ljust(28, b"\0"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab=0", max_size=8),
    lambda inner: st.lists(inner, max_size=5),
)


@given(st.dictionaries(st.sampled_from(list(tcp_repair.TcpState.__dataclass_fields__)), JSON))
def test_states_from_a_peer(state: dict[str, Any]) -> None:
    with contextlib.suppress(PeerError):
        tcp_repair.parse(state)


PEERS = [
    message(
        24,
        0x501,
        struct.pack("=BBBBBBBBI", 2, 8, 0, 0, 254, marks.mark(9), 0, 1, 0)
        + attribute(1, bytes(4))
        + attribute(4, bytes(4)),
    ),
    message(
        104,
        0x501,
        struct.pack("=BBBBI", 2, 0, marks.mark(9), 0, 0) + attribute(1, bytes(4)) + attribute(5, bytes(4)),
    ),
    message(
        20, 0x501, struct.pack("=BBBBI", 2, 24, 0, 0, 2) + attribute(1, bytes(4)) + attribute(2, bytes(4))
    ),
    message(
        28,
        0x501,
        struct.pack("=BBHiHBB", 2, 0, 0, 2, 0x80, 0, 0) + attribute(1, bytes(4)) + attribute(2, bytes(6)),
    ),
    message(32, 0x601, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 100, 0, 0, 1, 0) + attribute(6, bytes(4))),
]


@settings(max_examples=1000)
@given(st.sampled_from(PEERS), st.data())
def test_a_peers_message_with_a_damaged_byte_is_refused_or_written_anew(
    valid: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(4, len(valid) - 1))
    one = valid[:at] + bytes([data.draw(st.integers(0, 255))]) + valid[at + 1 :]
    try:
        made = from_peer.checked(one, 9)
    except MalformedError:
        return
    again = from_peer.checked(made.message, 9)
    assert again == made, "what is for the kernel is in the form that we write"


def test_those_are_valid() -> None:
    for one in PEERS:
        assert from_peer.checked(one, 9).new
