"""Peers against each other over loopback: identity, errors, bounds, reconnection."""

import asyncio
import contextlib
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from vmnet import pki
from vmnet.config import Config, parse
from vmnet.errors import (
    ConfigError,
    ExitCode,
    NotFoundError,
    PeerError,
    RefusedError,
    VmnetError,
    WaitTimeoutError,
)
from vmnet.peer import PeerClient, PeerServer
from vmnet.peer import server as server_module
from vmnet.peer.link import NUDGE_S

IP = {"a": "127.0.0.1", "b": "127.0.0.2", "c": "127.0.0.3"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.init(directory)
    for name in IP:
        pki.host(name, directory)
    other = directory / "other"
    pki.init(other)
    pki.host("a", other)
    pki.host("expired", directory, days=-0.5)
    return directory


@pytest.fixture
def port() -> int:
    """Free at all addresses, and below what the kernel gives to outgoing connections: none takes it meanwhile."""
    while True:
        number = random.randrange(20_000, 32_000)
        try:
            socket.create_server(("", number), family=socket.AF_INET6, dualstack_ipv6=True).close()
        except OSError:
            continue
        return number


def config(me: str, port: int, keys: Path | None, peers: str = "abc", address: str = "") -> Config:
    tls = "plain = true"
    if keys:
        tls = f"ca = '{keys}/ca.pem'\ncertificate = '{keys}/host.pem'\nkey = '{keys}/host.key'"
    listen = f"[listen]\naddress = '{address or IP[me]}'\nport = {port}\n"
    others = "".join(f"[peers.{p}]\naddress = '{IP[p]}'\nport = {port}\n" for p in peers if p != me)
    return parse(f"[host]\nname = '{me}'\n{listen}{others}[tls]\n{tls}", "test")


async def handler(peer: str, op: str, payload: dict[str, Any]) -> dict[str, Any]:
    match op:
        case "refuse":
            raise RefusedError("not\nnow", "wait")
        case "bug":
            raise ZeroDivisionError
        case "sleep":
            await asyncio.sleep(payload["s"])
        case "huge":
            return {"x": "y" * 5_000_000}
    return {"from": peer, "op": op, **payload}


@contextlib.asynccontextmanager
async def pair(
    serving: Config,
    asking: Config,
    handle: Callable[[str, str, dict[str, Any]], Awaitable[dict[str, Any]]] = handler,
) -> AsyncIterator[PeerClient]:
    server = PeerServer()
    await server.start(serving, handle)
    client = PeerClient(asking, "b")
    try:
        yield client
    finally:
        await client.close()
        await server.stop()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


@pytest.fixture(params=["plain", "tls"])
def both(request: pytest.FixtureRequest, certificates: Path, port: int) -> tuple[Config, Config]:
    if request.param == "plain":
        return config("b", port, None), config("a", port, None)
    return config("b", port, certificates / "b"), config("a", port, certificates / "a")


def test_request_and_answer(both: tuple[Config, Config]) -> None:
    async def test() -> None:
        async with pair(*both) as client:
            assert await client.request("x", {"n": 1}, 5) == {"from": "a", "op": "x", "n": 1}
            answers = await asyncio.gather(*(client.request("x", {"n": n}, 5) for n in range(200)))
            assert [one["n"] for one in answers] == list(range(200))

    run(test())


def test_errors_travel_with_code_message_and_hint(both: tuple[Config, Config]) -> None:
    async def test() -> None:
        async with pair(*both) as client:
            with pytest.raises(RefusedError, match=r"^not now; wait$"):
                await client.request("refuse", {}, 5)
            with pytest.raises(VmnetError, match="bug at b in 'bug': ZeroDivisionError") as caught:
                await client.request("bug", {}, 5)
            assert caught.value.code is ExitCode.INTERNAL
            with pytest.raises(PeerError, match="too large"):
                await client.request("huge", {}, 5)
            with pytest.raises(PeerError, match="too large"):
                await client.request("x", {"x": "y" * 5_000_000}, 5)
            assert await client.request("still", {}, 5)

    run(test())


def test_deadline_names_peer_and_op_and_spares_the_connection(both: tuple[Config, Config]) -> None:
    async def test() -> None:
        async with pair(*both) as client:
            with pytest.raises(WaitTimeoutError, match=r"peer b did not answer 'sleep' within 0\.1 s"):
                await client.request("sleep", {"s": 0.3}, 0.1)
            slow = asyncio.create_task(client.request("sleep", {"s": 0.3}, 5))
            assert await client.request("quick", {}, 5)
            assert not slow.done()
            assert await slow

    run(test())


def test_a_late_answer_is_nudged_a_few_times_and_an_early_one_never(both: tuple[Config, Config]) -> None:
    """Whatever follows a lost packet lets TCP see at once that it is lost; its own timer takes 200 ms."""

    async def test() -> None:
        async with pair(*both) as client:
            await client.request("x", {}, 5)
            assert client._link is not None
            written: list[bytes] = []
            writer = client._link._writer
            write = writer.write
            writer.write = lambda data: (written.append(data), write(data))[1]  # type: ignore[method-assign]
            for _ in range(50):  # one that the machine itself did not hold up
                written.clear()
                began = time.monotonic()
                await client.request("x", {}, 5)
                if early := time.monotonic() - began < NUDGE_S[0] / 2:
                    break
            assert early, "no answer came within 5 ms"
            await asyncio.sleep(0.05)
            assert len(written) == 1
            await client.request("sleep", {"s": 0.05}, 5)
            assert written[1:] and b"_clock" not in written[1]
            assert 2 <= sum(b"_clock" in one for one in written[2:]) == len(written) - 2 <= len(NUDGE_S)
            before = len(written)
            await client.request("sleep", {"s": 0.5}, 5)
            assert len(written) == before + 1 + len(NUDGE_S)
            assert await client.request("x", {"n": 1}, 5) == {"from": "a", "op": "x", "n": 1}

    run(test())


def test_clock_offset_on_one_machine_is_nearly_zero(both: tuple[Config, Config]) -> None:
    async def test() -> None:
        async with pair(*both) as client:
            assert abs(await client.clock_offset_ns()) < 5_000_000

    run(test())


def test_reconnects_by_itself(both: tuple[Config, Config]) -> None:
    async def test() -> None:
        serving, asking = both
        client = PeerClient(asking, "b")
        for _ in range(2):
            with pytest.raises(PeerError, match=r"cannot reach peer b at 127\.0\.0\.2 port"):
                await client.request("x", {}, 5)
        for _ in range(2):
            async with pair(serving, asking):
                assert await client.request("x", {}, 5)
                waiting = asyncio.create_task(client.request("sleep", {"s": 9}, 15))
                await client.request("x", {}, 5)
                server_module.STOP_S = 0.01
            with pytest.raises(PeerError, match="lost the connection to peer b"):
                await waiting
        await client.close()

    run(test())


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("c", "'a' showed a certificate of c"),
        ("other/a", "certificate verify failed"),
        ("expired", "certificate has expired"),
    ],
)
def test_a_client_without_the_right_certificate_is_refused(
    certificates: Path, port: int, keys: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        asking = config("a", port, certificates / keys)
        async with pair(config("b", port, certificates / "b"), asking) as client:
            with pytest.raises(PeerError, match=r"peer b (refused|hung up on) us"):
                await client.request("x", {}, 5)
        assert expected in caplog.text

    if keys == "other/a":  # an attacker: trusts our CA, but has a key of its own
        (certificates / "other/a/ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
    run(test())


def test_a_server_without_the_right_certificate_is_refused(certificates: Path, port: int) -> None:
    async def test() -> None:
        async with pair(
            config("b", port, certificates / "c"), config("a", port, certificates / "a")
        ) as client:
            with pytest.raises(PeerError, match="'b' showed a certificate of c"):
                await client.request("x", {}, 5)

    run(test())


def test_unknown_peers_and_wrong_names_are_refused(certificates: Path, port: int) -> None:
    async def test() -> None:
        asking = config("a", port, certificates / "a")
        async with pair(config("b", port, certificates / "b", peers="c"), asking) as client:
            with pytest.raises(PeerError, match=r"'a' is no peer of b; add \[peers\.a\] there"):
                await client.request("x", {}, 5)
        async with pair(config("c", port, None, address=IP["b"]), config("a", port, None)) as client:
            with pytest.raises(PeerError, match="peer b says that it is 'c'"):
                await client.request("x", {}, 5)
        with pytest.raises(NotFoundError, match="no peer 'z'"):
            PeerClient(asking, "z")

    run(test())


def test_plain_needs_the_configured_address_and_both_ends_plain(certificates: Path, port: int) -> None:
    async def test() -> None:
        lying = config("a", port, None, address=IP["c"])
        async with pair(config("b", port, None), lying) as client:
            with pytest.raises(PeerError, match=r"'a' came from 127\.0\.0\.3, not from 127\.0\.0\.1"):
                await client.request("x", {}, 5)
        async with pair(config("b", port, certificates / "b"), config("a", port, None)) as client:
            with pytest.raises(PeerError, match="peer b"):
                await client.request("x", {}, 5)
        async with pair(config("b", port, None), config("a", port, certificates / "a")) as client:
            with pytest.raises(PeerError, match="peer b"):
                await client.request("x", {}, 5)

    run(test())


def test_listening_on_both_families(port: int) -> None:
    async def test() -> None:
        async with pair(config("b", port, None, address="::"), config("a", port, None)) as client:
            assert (await client.request("x", {}, 5))["from"] == "a"

    run(test())


def test_missing_certificates_and_busy_ports_are_named(tmp_path: Path, port: int) -> None:
    async def test() -> None:
        with pytest.raises(ConfigError, match=r"ca\.pem is missing"):
            await PeerServer().start(config("b", port, tmp_path), handler)
        for file in ("ca.pem", "host.pem", "host.key"):
            (tmp_path / file).write_text("x")
        with pytest.raises(ConfigError, match="cannot be used"):
            await PeerServer().start(config("b", port, tmp_path), handler)
        async with pair(config("b", port, None), config("a", port, None)):
            with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.2 port"):
                await PeerServer().start(config("b", port, None), handler)

    run(test())


def frame(message: object) -> bytes:
    body = json.dumps(message).encode()
    return len(body).to_bytes(4, "big") + body


HELLO = frame({"vmnet": 1, "name": "a"})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\xff\xff\xff\xff", b""),
        (frame([]), b""),
        (frame({"vmnet": 2, "name": "a"}), b"protocol 1, its peer 2"),
        (frame({"vmnet": 1}), b"is no peer"),
        (frame({"vmnet": 1, "name": ["a"]}), b"is no peer"),
        (HELLO + frame({"id": "x", "op": "x", "payload": {}}), b"garbled request"),
        (HELLO + frame({"id": 1, "op": 3, "payload": {}}), b"garbled request"),
        (HELLO + frame({"id": 1, "op": "x", "payload": 3}), b"garbled request"),
        (HELLO + b"\x00\x00\x00\x01{", b"vmnet"),
    ],
)
def test_a_server_survives_garbage(port: int, data: bytes, expected: bytes) -> None:
    async def test() -> None:
        async with pair(config("b", port, None), config("a", port, None)) as client:
            reader, writer = await asyncio.open_connection(IP["b"], port, local_addr=(IP["a"], 0))
            writer.write(data)
            writer.write_eof()
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = await reader.read()
            assert expected in answer
            writer.close()
            assert await client.request("x", {}, 5)

    run(test())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "hung up on us"),
        (b"\xff\xff\xff\xff", "garbled"),
        (frame({"vmnet": 2}), "protocol 1, its peer 2"),
        (frame({"error": 3}), "refused us: failed without saying why"),
        (frame({"vmnet": 1, "name": "b"}), "lost the connection"),
        (frame({"vmnet": 1, "name": "b"}) + frame({"id": 1}), "garbled answer"),
        (frame({"vmnet": 1, "name": "b"}) + b"\x00\x00\x00\x02[]", "garbled: not a JSON object"),
        (frame({"vmnet": 1, "name": "b"}) + frame({"id": [], "result": 1}), "lost the connection"),
    ],
)
def test_a_client_survives_garbage(port: int, data: bytes, expected: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        size = 4 + int.from_bytes(data[:4], "big")
        hello, rest = data[:size], data[size:]
        writer.write(hello)
        if rest or expected == "lost the connection":
            await reader.read(1000)
        writer.write(rest)
        writer.close()

    async def test() -> None:
        server = await asyncio.start_server(answer, IP["b"], port)
        client = PeerClient(config("a", port, None), "b")
        with pytest.raises(PeerError, match=expected):
            await client.request("x", {}, 5)
        await client.close()
        server.close()

    run(test())


def test_silent_connections_do_not_keep_a_peer_out(both: tuple[Config, Config]) -> None:
    """From any address but the peer's: a place is held until the handshake's limit."""

    async def test() -> None:
        async with pair(*both) as client:
            serving = both[0]
            address = (serving.listen.address, serving.listen.port)
            silent = []
            try:
                for last in range(2, 60):
                    one = socket.socket()
                    one.bind((f"127.1.1.{last}", 0))
                    one.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        one.connect(address)
                    silent.append(one)
                assert await client.request("x", {"n": 1}, 5) == {"from": "a", "op": "x", "n": 1}
            finally:
                for one in silent:
                    one.close()

    run(test())
