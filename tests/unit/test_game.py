"""The game's rules, and what a player makes of what it hears."""

from __future__ import annotations

from vmnet.game import wire
from vmnet.game.player import Player, Report
from vmnet.game.wire import Input, Place, Signal, State, Type
from vmnet.game.world import IDLE_S, SIZE, START, STEP, World


def put(seq: int, dx: int = 0, dy: int = 0, player: int = 7) -> bytes:
    return wire.encode_input(Input(player, seq, dx, dy))


def state(world: World, now_s: float, peer: str = "p") -> State:
    found = next(wire.decode_for_player(message) for message, to in world.tick(now_s) if to == peer)
    assert isinstance(found, State)
    return found


def test_an_input_moves_the_player_and_is_acknowledged() -> None:
    world = World()
    assert world.received(put(0, 3, -100), "p", 10.0) == []
    assert state(world, 10.03125) == State(7, 1, 0, 31_250, 1, 0, (Place(0, START + 3, START - STEP),))


def test_repeated_and_overtaken_inputs_are_ignored() -> None:
    world = World()
    for seq in (5, 5, 4, 6, 5):
        world.received(put(seq, 1), "p", 0.0)
    found = state(world, 0.0)
    assert (found.acked, found.accepted, found.places) == (6, 2, (Place(0, START + 2, START),))


def test_nobody_leaves_the_board() -> None:
    world = World()
    for seq in range(200):
        world.received(put(seq, 127, -128), "p", 0.0)
    assert state(world, 0.0).places == (Place(0, SIZE - 1, 0),)


def test_players_see_each_other_and_one_can_leave() -> None:
    world = World()
    world.received(put(0, player=1), "p", 0.0)
    world.received(put(0, player=2), "q", 0.0)
    assert [place.slot for place in state(world, 0.0, "q").places] == [0, 1]
    world.received(wire.encode_signal(Signal(Type.LEAVE, 1)), "q", 0.0)
    assert len(state(world, 0.0).places) == 2, "q cannot make p leave"
    world.received(wire.encode_signal(Signal(Type.LEAVE, 1)), "p", 0.0)
    assert [place.slot for place in state(world, 0.0, "q").places] == [1]


def test_another_address_does_not_play_for_a_player() -> None:
    world = World()
    world.received(put(0), "p", 0.0)
    world.received(put(9, 5), "elsewhere", 1.0)
    assert (state(world, 1.0).acked, [to for _, to in world.tick(1.0)]) == (0, ["p"])


def test_a_silent_player_has_left() -> None:
    world = World()
    world.received(put(0), "p", 0.0)
    assert world.tick(IDLE_S)
    assert world.tick(IDLE_S + 0.001) == []


def test_one_too_many_is_told() -> None:
    world = World()
    for player in range(wire.MAX_PLAYERS):
        assert world.received(put(0, player=player), player, 0.0) == []
    answer = [(wire.encode_signal(Signal(Type.FULL, 99)), "late")]
    assert world.received(put(0, player=99), "late", 0.0) == answer
    everybody = world.tick(0.0)
    assert len(everybody) == wire.MAX_PLAYERS
    assert {len(message) for message, _ in everybody} == {wire.MAX_STATE_BYTES}


def told(player: Player, now_s: float, tick: int, acked: int = wire.NONE, hold_us: int = 0) -> list[Report]:
    found = State(player.id, tick, acked, hold_us, 0, 3, (Place(3, 100, 200),))
    return player.received(wire.encode_state(found), now_s)


def test_round_trips_without_the_servers_part() -> None:
    player = Player(7, 0.0, 0.5)
    player.input(0.0)
    player.input(0.05)
    assert told(player, 0.08, 1, acked=1, hold_us=20_000) == [
        {"event": "joined", "slot": 3, "after_ms": 80.0}
    ]
    told(player, 0.13, 2, acked=1, hold_us=70_000)
    second = player.check(1.0)[-1]
    assert second["rtt_ms"] == {"min": 10.0, "mean": 10.0, "max": 10.0}, (
        "once an input, however often acknowledged"
    )
    assert (second["states"], second["place"]) == (2, [100, 200])
    assert "rtts_ms" not in second


def test_each_round_trip_is_reported_if_wanted() -> None:
    player = Player(7, 0.0, 0.5, each=True)
    for seq, answered_s in enumerate((0.01, 0.07)):
        player.input(seq * 0.05)
        told(player, answered_s, seq + 1, acked=seq)
    assert player.check(1.0)[-1]["rtts_ms"] == [10.0, 20.0]


def test_a_silence_is_a_disconnect_once_and_ends_with_the_next_state() -> None:
    player = Player(7, 0.0, 0.5)
    told(player, 0.1, 1)
    assert player.check(0.6) == []
    assert player.check(0.61) == [{"event": "disconnected", "silent_ms": 510.0}]
    assert player.check(0.7) == []
    assert told(player, 0.9, 2) == [{"event": "reconnected", "silent_ms": 800.0}]
    summary = player.summary(1.0)
    assert (summary["disconnects"], summary["longest_gap_ms"], summary["states"]) == (1, 800.0, 2)


def test_an_end_in_silence_is_in_the_summary() -> None:
    player = Player(7, 0.0, 0.5)
    assert player.summary(3.0)["longest_gap_ms"] == 3000.0
    assert player.summary(3.0)["joined"] is False


def test_states_for_others_and_old_ones_say_nothing() -> None:
    player, other = Player(7, 0.0, 0.5), Player(8, 0.0, 0.5)
    told(player, 0.1, 5)
    for tick, whose in ((5, player), (4, player), (9, other)):
        found = State(whose.id, tick, 0, 0, 0, 0, ())
        assert player.received(wire.encode_state(found), 0.2) == []
    assert player.summary(0.2)["states"] == 1


def test_a_server_that_begins_anew_is_heard() -> None:
    player = Player(7, 0.0, 0.5)
    told(player, 0.1, 1000)
    assert told(player, 0.2, 1) == []
    assert player.summary(0.2)["states"] == 2


def test_no_room_is_told() -> None:
    player = Player(7, 0.0, 0.5)
    assert player.received(wire.encode_signal(Signal(Type.FULL, 7)), 0.1) == [{"event": "full"}]
