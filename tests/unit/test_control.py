"""Daemon's socket: both ends against each other, over a real unix socket in a temporary folder."""

import asyncio
import json
import socket
import stat
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dom0.control_server import ControlServer, HookAnswer, HookCall
from vmnet.control import ControlClient
from vmnet.errors import (
    ConfigError,
    ExitCode,
    NotFoundError,
    RefusedError,
    UnavailableError,
    WaitTimeoutError,
)
from vmnet.wire import error_from_dict

Emit = Callable[[dict[str, Any]], Awaitable[None]]


class Daemon:
    """Stands in for the daemon: records hook calls, answers requests."""

    def __init__(self) -> None:
        self.calls: list[HookCall] = []
        self.finished = asyncio.Event()

    async def on_hook(self, call: HookCall) -> HookAnswer:
        self.calls.append(call)
        if call.name == "bad":
            raise ValueError("bug")
        if call.name == "no":
            raise RefusedError("not\nhere", "go away")
        return HookAnswer(xml=call.xml.replace(b"blue", b"br0"))

    async def on_request(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        match request["op"]:
            case "missing":
                raise NotFoundError("no VM 'x'", "see vmnet inventory")
            case "bug":
                raise ZeroDivisionError
            case "silent":
                await asyncio.sleep(0.3)
            case "flood":
                for n in range(200):
                    await emit({"n": n, "pad": "x" * 100_000})
                    await asyncio.sleep(0)
                self.finished.set()
        await emit({"n": 1})
        await emit({"n": 2})
        return {"echo": request}


def serve(path: Path, use: Callable[[Daemon], Any]) -> Any:
    """Run a server, call ``use`` in a thread, stop the server."""

    async def main() -> Any:
        daemon = Daemon()
        server = ControlServer(path, daemon.on_hook, daemon.on_request)
        await server.start()
        try:
            return await asyncio.wait_for(asyncio.to_thread(use, daemon), 20)
        finally:
            await server.stop()

    return asyncio.run(main())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "d.sock"


def raw(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(data)
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
        return answer


def test_request_events_and_result(path: Path) -> None:
    client = ControlClient(path)
    assert serve(path, lambda _: client.request("ping", vm="x")) == {"echo": {"op": "ping", "vm": "x"}}
    lines = serve(path, lambda _: list(client.stream("ping")))
    assert lines == [{"event": {"n": 1}}, {"event": {"n": 2}}, {"result": {"echo": {"op": "ping"}}}]


def test_the_daemons_error_comes_back_as_it_was(path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no VM 'x'; see vmnet inventory") as caught:
        serve(path, lambda _: ControlClient(path).request("missing"))
    assert caught.value.code is ExitCode.NOT_FOUND


def test_a_bug_in_the_daemon_is_said(path: Path) -> None:
    answer = json.loads(serve(path, lambda _: raw(path, b'{"op": "bug"}\n')))
    assert answer["error"]["code"] == ExitCode.INTERNAL
    assert "ZeroDivisionError" in answer["error"]["message"]


def test_silence_has_a_deadline(path: Path) -> None:
    with pytest.raises(WaitTimeoutError, match=r"said nothing about 'silent' for 0\.05 s"):
        serve(path, lambda _: ControlClient(path, silence_s=0.05).request("silent"))


def test_no_daemon(path: Path) -> None:
    with pytest.raises(UnavailableError, match=rf"no daemon answers on {path}; start it: "):
        ControlClient(path).request("ping")


def test_daemon_that_talks_nonsense_or_leaves(path: Path) -> None:
    path.parent.mkdir()
    for answer, expected in (
        (b"", "went away"),
        (b"x\n", "language"),
        (b"{}\n", "neither"),
        (b"{", "went away"),
    ):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()

            def reply(listener: socket.socket = listener, answer: bytes = answer) -> None:
                sock, _ = listener.accept()
                with sock:
                    sock.recv(1000)
                    sock.sendall(answer)

            thread = threading.Thread(target=reply)
            thread.start()
            with pytest.raises(UnavailableError, match=expected):
                ControlClient(path).request("ping")
            thread.join()
        path.unlink()


def test_hook_call_both_ways(path: Path) -> None:
    def use(daemon: Daemon) -> bytes:
        answer = raw(path, b"HOOK 1 qemu my%20vm migrate begin - 12\n<x a='blue'>")
        assert daemon.calls == [HookCall("qemu", "my vm", "migrate", "begin", "-", b"<x a='blue'>")]
        return answer

    assert serve(path, use) == b"OK 11\n<x a='br0'>"


def test_hook_without_xml_and_refused_hook(path: Path) -> None:
    assert serve(path, lambda _: raw(path, b"HOOK 1 libxl vm migrate begin  0\n")) == b"OK 0\n"
    assert serve(path, lambda _: raw(path, b"HOOK 1 qemu no a b - 0\n")) == b"REFUSE not here; go away\n"


def test_hook_handler_with_a_bug_gives_no_answer(path: Path) -> None:
    assert serve(path, lambda _: raw(path, b"HOOK 1 qemu bad a b - 0\n")) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"HOOK 2 qemu vm a b - 0\n",
        b"HOOK 1 lxc vm a b - 0\n",
        b"HOOK 1 qemu vm a b - 1048577\n",
        b"HOOK 1 qemu vm a b - -1\n",
        b"HOOK 1 qemu %0a a b - 0\n",
        b"HOOK 1 qemu %ff a b - 0\n",
        b"HOOK 1 qemu vm a b 0\n",
        b"\n",
        b"GET / HTTP/1.0\n",
        b"x" * 3_000_000,
    ],
)
def test_garbage_is_dropped(path: Path, data: bytes) -> None:
    def use(daemon: Daemon) -> None:
        with suppress(ConnectionError):
            assert raw(path, data) == b""
        assert not daemon.calls

    serve(path, use)


def test_bad_json_is_answered(path: Path) -> None:
    for data in (b"{\n", b'{"a": ' + b"[" * 100_000 + b"\n"):

        def use(_: Daemon, data: bytes = data) -> bytes:
            return raw(path, data)

        assert b"the request is not JSON" in serve(path, use)


def test_caller_that_leaves_or_does_not_read_stops_nothing(path: Path) -> None:
    def use(daemon: Daemon) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        sock.sendall(b'{"op": "flood"}\n')
        for _ in range(200):
            if daemon.finished.is_set():
                break
            time.sleep(0.05)
        assert daemon.finished.is_set()
        sock.close()

    serve(path, use)


def test_socket_is_private_and_leaves_with_the_daemon(path: Path) -> None:
    mode, parent = serve(path, lambda _: (path.stat().st_mode, path.parent.stat().st_mode))
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(parent) == 0o755
    assert not path.exists()


def test_stale_socket_is_replaced_a_live_one_and_a_file_are_not(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    assert serve(path, lambda _: ControlClient(path).request("ping"))

    with pytest.raises(UnavailableError, match="another daemon answers"):
        serve(path, lambda _: serve(path, lambda _: None))

    path.write_text("precious")
    with pytest.raises(ConfigError, match="it is no socket"):
        serve(path, lambda _: None)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    "garbage", [None, 3, {}, {"code": "x", "message": 3}, {"code": 0, "message": "\x1b[2J"}]
)
def test_garbled_error_is_internal(garbage: object) -> None:
    error = error_from_dict(garbage)
    assert error.code is ExitCode.INTERNAL
    assert str(error).isprintable()
