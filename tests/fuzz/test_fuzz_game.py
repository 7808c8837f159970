"""Whatever comes to the game's server or a player: a message, or nothing; never an error, never more than so many players."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vmnet.game import wire
from vmnet.game.player import Player
from vmnet.game.wire import Input, Place, Signal, State, Type
from vmnet.game.world import SIZE, World

quick = settings(max_examples=300, deadline=None)
U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
I8 = st.integers(-128, 127)
INPUTS = st.builds(Input, U64, st.integers(0, wire.NONE - 1), I8, I8)
PLACES = st.lists(st.builds(Place, U16, U16, U16), max_size=wire.MAX_PLAYERS).map(tuple)
STATES = st.builds(State, U64, U32, U32, U32, U32, U16, PLACES)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Real messages with bytes changed, missing or too many, and anything."""
    encoded = st.one_of(
        INPUTS.map(wire.encode_input),
        STATES.map(wire.encode_state),
        st.builds(Signal, st.sampled_from([Type.LEAVE, Type.FULL]), U64).map(wire.encode_signal),
    )
    message = bytearray(draw(encoded | st.binary(max_size=80)))
    for _ in range(draw(st.integers(0, 3))):
        if message:
            message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message[: draw(st.integers(0, len(message)))]) if draw(st.booleans()) else bytes(message)


@quick
@given(INPUTS, STATES, U64)
def test_messages_come_back_as_they_went(one: Input, state: State, player: int) -> None:
    assert wire.decode_for_server(wire.encode_input(one)) == one
    assert wire.decode_for_player(wire.encode_state(state)) == state
    assert wire.decode_for_server(wire.encode_signal(Signal(Type.LEAVE, player))) == Signal(
        Type.LEAVE, player
    )
    assert wire.decode_for_player(wire.encode_input(one)) is None
    assert wire.decode_for_server(wire.encode_state(state)) is None


@quick
@given(st.lists(st.tuples(mangled(), st.integers(0, 5)), max_size=60))
def test_any_bytes_to_the_server(messages: list[tuple[bytes, int]]) -> None:
    world = World()
    for n, (message, peer) in enumerate(messages):
        assert len(world.received(message, peer, n / 10)) <= 1
        sent = world.tick(n / 10)
        assert len(sent) <= wire.MAX_PLAYERS
        for state, _ in sent:
            found = wire.decode_for_player(state)
            assert isinstance(found, State)
            assert all(0 <= place.x < SIZE and 0 <= place.y < SIZE for place in found.places)


@quick
@given(st.lists(mangled() | STATES.map(lambda one: wire.encode_state(one)), max_size=30), U64)
def test_any_bytes_to_a_player(messages: list[bytes], number: int) -> None:
    player = Player(number, 0.0, 0.5)
    for n, message in enumerate(messages):
        player.input(n / 10)
        assert {report["event"] for report in player.received(message, n / 10)} <= {
            "joined",
            "reconnected",
            "full",
        }
        player.check(n / 10)
    summary = player.summary(10.0)
    assert summary["states"] <= len(messages)
    assert summary["rtt_ms"]["max"] is None or summary["rtt_ms"]["max"] >= 0
