"""The guest's game server, in C, against the rules in Python; and both ends on real sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmnet.game import sockets, wire
from vmnet.game.wire import Input, Place, Signal, State, Type
from vmnet.game.world import World

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
_ids = itertools.count(1)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("guest") / "game"
    flags = [
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
    ]
    subprocess.run(["gcc", *flags, "-o", made, ROOT / "guest/game.c"], check=True)
    return made


def free_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["C", "Python"])
def server(request: pytest.FixtureRequest, program: Path) -> Iterator[int]:
    """Either server's port."""
    port = free_port()
    python = [sys.executable, "-m", "vmnet.game", "serve", "--port", str(port)]
    argv = [program, str(port)] if request.param == "C" else python
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "game: ready\n"
        yield port
        assert running.poll() is None, "it goes on whatever came"
        running.send_signal(signal.SIGKILL)


class Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.connect(("::1", port))

    def state(self, player: int, accepted: int) -> State:
        """The first state in which the server has taken so many of a player's inputs."""
        while True:
            found = wire.decode_for_player(self.socket.recv(2048))
            if isinstance(found, State) and found.player == player and found.accepted >= accepted:
                return found


STEPS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(-128, 127), st.integers(-128, 127)), min_size=1, max_size=30
)


def test_the_guest_does_what_the_rules_say(server: int) -> None:
    client = Client(server)

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(STEPS, st.lists(st.binary(max_size=100), max_size=5))
    def same(steps: list[tuple[int, int, int]], garbage: list[bytes]) -> None:
        player, world = next(_ids), World()
        messages = [wire.encode_input(Input(player, *step)) for step in steps]
        for message in (
            *garbage,
            *messages,
            *(m[:-1] for m in messages[:3]),
            *(m + b"\0" for m in messages[:3]),
        ):
            world.received(message, "p", 0.0)
            client.socket.send(message)
        (told, _) = next((m, to) for m, to in world.tick(0.0) if _whose(m) == player)
        wanted = wire.decode_for_player(told)
        assert isinstance(wanted, State)
        found = client.state(player, wanted.accepted)
        client.socket.send(wire.encode_signal(Signal(Type.LEAVE, player)))
        assert (found.acked, found.accepted) == (wanted.acked, wanted.accepted)
        assert _own(found) == _own(wanted)

    same()


def _whose(message: bytes) -> int | None:
    found = wire.decode_for_player(message)
    return found.player if found else None


def _own(state: State) -> tuple[int, int]:
    mine: Place = next(place for place in state.places if place.slot == state.slot)
    return mine.x, mine.y


def test_one_too_many_and_another_address(server: int) -> None:
    client, other = Client(server), Client(server)
    players = [next(_ids) for _ in range(wire.MAX_PLAYERS)]
    for player in players:
        client.socket.send(wire.encode_input(Input(player, 0, 1, 1)))
    assert len(client.state(players[-1], 1).places) == wire.MAX_PLAYERS
    other.socket.send(wire.encode_input(Input(next(_ids), 0, 0, 0)))
    late = wire.decode_for_player(other.socket.recv(2048))
    assert isinstance(late, Signal)
    assert late.type is Type.FULL
    other.socket.send(wire.encode_input(Input(players[0], 5, 1, 1)))
    other.socket.send(wire.encode_signal(Signal(Type.LEAVE, players[1])))
    client.socket.send(wire.encode_input(Input(players[2], 1, 1, 1)))
    found = client.state(players[2], 2)
    assert len(found.places) == wire.MAX_PLAYERS, "nobody else makes a player leave"
    assert client.state(players[0], 1).acked == 0, "nor play for it"


def test_a_player_measures_and_reports(server: int) -> None:
    argv = [
        sys.executable,
        "-m",
        "vmnet.game",
        "play",
        "127.0.0.1",
        "--port",
        str(server),
        "--duration",
        "1.5",
    ]
    said = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=30, check=True)
    reports = [json.loads(line) for line in said.stdout.splitlines()]
    assert [one["event"] for one in reports] == ["joined", "second", "summary"]
    summary = reports[-1]
    assert summary["states"] >= 20
    assert summary["disconnects"] == 0
    assert 0 <= summary["rtt_ms"]["mean"] < 50


def test_a_server_that_stands_still_is_a_disconnect(program: Path) -> None:
    port, reports = free_port(), list[dict[str, object]]()

    async def scene() -> None:
        running = subprocess.Popen([program, str(port)], stdout=subprocess.PIPE, text=True)
        try:
            assert running.stdout is not None
            running.stdout.readline()
            heard = asyncio.Event()

            def tell(report: dict[str, object]) -> None:
                reports.append(report)
                heard.set()

            async def until(event: str) -> None:
                while event not in [one["event"] for one in reports]:
                    heard.clear()
                    await asyncio.wait_for(heard.wait(), 10)

            player = asyncio.ensure_future(sockets.play("127.0.0.1", port, limit_s=0.3, tell=tell))
            await until("joined")
            running.send_signal(signal.SIGSTOP)
            await until("disconnected")
            running.send_signal(signal.SIGCONT)
            await until("reconnected")
            player.cancel()
            await asyncio.gather(player, return_exceptions=True)
        finally:
            running.kill()
            running.wait()

    asyncio.run(scene())
    events = [one["event"] for one in reports if one["event"] != "second"]
    assert events == ["joined", "disconnected", "reconnected", "summary"]
    assert reports[-1]["disconnects"] == 1
