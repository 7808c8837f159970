"""Server side of the daemon's unix socket: JSON requests of the command line, and hook calls.

The protocol is in docs/architecture.md. What arrives is untrusted until parsed; who calls is checked by the
kernel (SO_PEERCRED). A caller that goes away or does not read never stops or slows a migration.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dom0.hook_call import MAX_XML, HookAnswer, HookCall, encode_answer, parse_call
from vmnet.errors import ConfigError, RefusedError, UnavailableError, VmnetError
from vmnet.wire import decode_object, error_to_dict

__all__ = ["ControlServer", "HookAnswer", "HookCall"]

log = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], Awaitable[None]]
OnHook = Callable[[HookCall], Awaitable[HookAnswer]]
OnRequest = Callable[[dict[str, Any], Emit], Awaitable[dict[str, Any]]]

MAX_REQUEST = MAX_XML
MAX_CALLERS = 256
MAX_UNREAD = 4 * 1024 * 1024  # bytes of events a caller may leave unread before it is dropped
READ_S = 5.0
STOP_S = 2.0


class ControlServer:
    """Serves one socket. The handlers set their own deadlines; their VmnetErrors are sent to the caller.

    If ``on_hook`` raises RefusedError the hook is refused; after any other error the connection closes
    without an answer, so that the hook does what it was installed to do when the daemon is away.
    """

    def __init__(self, path: Path, on_hook: OnHook, on_request: OnRequest) -> None:
        self._path = path
        self._on_hook = on_hook
        self._on_request = on_request
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._callers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises UnavailableError if another daemon answers there, ConfigError for a bad path."""
        try:
            sock = _bind(self._path)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self._path}: {error.strerror}", "see daemon.socket"
            ) from None
        self._inode = self._path.stat().st_ino
        self._server = await asyncio.start_unix_server(self._accept, sock=sock, limit=MAX_REQUEST)

    async def stop(self) -> None:
        """Close the socket, give callers STOP_S seconds to get their answers, remove it if still ours."""
        if self._server is None:
            return
        self._server.close()
        if self._callers:
            _, late = await asyncio.wait(self._callers, timeout=STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        try:
            await self._serve(reader, writer)
        except TimeoutError:
            log.warning("a caller on %s sent no whole request within %g s", self._path, READ_S)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            log.warning("a caller on %s was not understood: %s", self._path, error)
        finally:
            self._callers.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refusal = self._refusal(writer)
        if refusal:
            _send(writer, {"error": error_to_dict(refusal)})
            return
        async with asyncio.timeout(READ_S):
            line = await reader.readuntil(b"\n")
            call = None if line[:1] == b"{" else await parse_call(line, reader.readexactly)
        if call is None:
            await self._request(line, writer)
        else:
            await self._hook(call, writer)

    def _refusal(self, writer: asyncio.StreamWriter) -> VmnetError | None:
        sock = writer.get_extra_info("socket")
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            return RefusedError("only root may use the daemon", "run this as root (sudo)")
        if len(self._callers) > MAX_CALLERS:
            return UnavailableError(f"the daemon serves {MAX_CALLERS} callers already", "try again")
        return None

    async def _hook(self, call: HookCall, writer: asyncio.StreamWriter) -> None:
        try:
            answer = encode_answer(await self._on_hook(call))
        except RefusedError as error:
            answer = encode_answer(HookAnswer(refuse=str(error)))
        except Exception:
            log.exception("hook %s %s %s failed", call.name, call.op, call.subop)
            return
        writer.write(answer)

    async def _request(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        async def emit(event: dict[str, Any]) -> None:
            _send(writer, {"event": event})

        try:
            answer = {"result": await self._on_request(_decode(line), emit)}
        except VmnetError as error:
            answer = {"error": error_to_dict(error)}
        except Exception as error:
            log.exception("a request failed")
            answer = {
                "error": error_to_dict(VmnetError(f"bug in the daemon: {error!r}", "see its log; report it"))
            }
        _send(writer, answer)


def _decode(line: bytes) -> dict[str, Any]:
    try:
        return decode_object(line)
    except ValueError as error:
        raise RefusedError(f"the request is not JSON: {error}", "send one JSON object on one line") from None


def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    """Queue one line; never waits. A caller that left or reads nothing is dropped: work goes on."""
    if writer.is_closing():
        return
    writer.write(json.dumps(message).encode() + b"\n")
    if writer.transport.get_write_buffer_size() > MAX_UNREAD:
        writer.transport.abort()


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o600)  # before listen(): until then nobody can connect
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody answers on; leave anything else alone."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is in the way: it is no socket", "remove it, or set daemon.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # its backlog is full: somebody is there
    raise UnavailableError(f"another daemon answers on {path}", "stop it first")
