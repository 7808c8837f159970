"""Whatever a switch sends: understood, or refused in one line, and never anything else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.openflow import action, bundle, flow, hello, multipart, packet
from controller_bridge.openflow.flow import Command, Flow
from controller_bridge.openflow.match import Match, unpack_match
from controller_bridge.openflow.wire import V13, V14, Framer, Message, message
from vmnet.errors import PeerError

versions = st.sampled_from((V13, V14))
GOOD = [
    flow.flow_mod(
        V13, 1, Command.ADD, Flow(1, Match.of(in_port=1, eth_type=0x0800), action.apply([action.output(2)]))
    ),
    bundle.control(V13, 2, 3, bundle.Control.COMMIT_REPLY),
    hello.hello((V13, V14)),
    multipart.request(V14, 4, multipart.Part.PORT_DESC, bytes(72)),
]


def refused_or_not(read: object, *arguments: object) -> None:
    try:
        found = read(*arguments)  # type: ignore[operator]
        if hasattr(found, "__iter__"):
            list(found)
    except PeerError as error:
        assert "\n" not in str(error)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good message with some bytes changed or cut off, or nothing but noise."""
    raw = bytearray(draw(st.sampled_from(GOOD)) if draw(st.booleans()) else draw(st.binary(max_size=200)))
    for at in draw(st.lists(st.integers(0, max(0, len(raw) - 1)), max_size=4)):
        if raw:
            raw[at] = draw(st.integers(0, 255))
    return bytes(raw[: draw(st.integers(0, len(raw)))])


@given(versions, damaged(), st.integers(0, 60))
def test_bodies(version: int, body: bytes, at: int) -> None:
    for kind in range(36):
        one = Message(version, kind, 1, body)
        for read in (hello.refusal, hello.features, multipart.reply, packet.packet_in, bundle.answer):
            refused_or_not(read, one)
        refused_or_not(hello.negotiate, one, (V13, V14))
    refused_or_not(multipart.ports_in, version, body)
    refused_or_not(flow.flows_in, body)
    refused_or_not(unpack_match, body, at)
    refused_or_not(action.outputs, body)
    refused_or_not(action.redirected, body, 1, 2)
    refused_or_not(Match(body).fields)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8), st.lists(st.integers(1, 30))
)
def test_a_stream_in_pieces_is_the_same_stream(messages: list[tuple[int, bytes]], sizes: list[int]) -> None:
    raw = b"".join(message(V13, kind, number, body) for number, (kind, body) in enumerate(messages))
    framer, found, rest = Framer(), [], raw
    for size in [*sizes, len(raw)]:
        found += framer.feed(rest[:size])
        rest = rest[size:]
    assert found == [Message(V13, kind, number, body) for number, (kind, body) in enumerate(messages)]
    assert framer.rest == b""


@given(st.lists(damaged(), max_size=10))
def test_noise_on_the_stream(pieces: list[bytes]) -> None:
    framer = Framer()
    for one in pieces:
        try:
            framer.feed(one)
        except PeerError:
            return
        assert len(framer.rest) < 1 << 16
