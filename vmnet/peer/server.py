"""The end that answers: one handler for all peers, each known by name before it may ask anything."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from vmnet.config import Config
from vmnet.errors import ConfigError, ExitCode, PeerError, VmnetError
from vmnet.limited_log import LimitedLog
from vmnet.peer import frame, identity
from vmnet.peer.places import Places
from vmnet.wire import error_to_dict, one_line

log = logging.getLogger(__name__)

Handler = Callable[[str, str, dict[str, Any]], Awaitable[dict[str, Any]]]
Identify = Callable[[asyncio.StreamWriter, str], str]
"""(connection, name claimed) -> the name to believe; raises VmnetError for who may not come in."""

MAX_UNREAD = 2 * frame.MAX_FRAME
STOP_S = 2.0


class PeerServer:
    """Listens for peers. The handler gets (peer name, op, payload) and returns the result or raises VmnetError.

    A request once begun runs to its end even if its peer leaves: half a change would be worse than an unread answer.
    """

    def __init__(self, places: Places | None = None) -> None:
        """``places`` None: as :meth:`start` finds them for the configured peers."""
        self._places = places or Places(())
        self._full = LimitedLog(log, "peers' port")
        self._listener: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.tls: ssl.SSLContext | None = None

    async def start(self, config: Config, handler: Handler) -> None:
        """Listen on config.listen. Raises ConfigError if the address, port or certificates cannot be used."""
        tls = identity.server_context(config.tls)
        try:
            sock = listening(config.listen.address, config.listen.port)
        except OSError as error:
            where = f"{config.listen.address} port {config.listen.port}"
            raise ConfigError(f"cannot listen on {where}: {error.strerror}", "see [listen]") from None

        def identify(writer: asyncio.StreamWriter, claimed: str) -> str:
            identity.verify(config, writer, claimed)
            return claimed

        self._places = Places(peer.address for peer in config.peers.values())
        self.serve(sock, config.host.name, tls, identify, handler)

    def serve(
        self,
        sock: socket.socket,
        name: str,
        tls: ssl.SSLContext | None,
        identify: Identify,
        handler: Handler,
    ) -> None:
        """Answer at ``sock``, which listens and does not block, as ``name``."""
        self._name, self.tls, self._identify, self._handler = name, tls, identify, handler
        self._listener = asyncio.create_task(self._accept(sock))

    async def stop(self) -> None:
        """Stop listening, let running requests end for at most STOP_S seconds, close all connections."""
        if self._listener is None:
            return
        self._listener.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)
        late = {self._listener, *self._tasks, *self._connections}
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._listener = None

    def end(self, barred: identity.Barred) -> None:
        """Close the connections of those whose certificates count no more."""
        for writer in self._writers:
            if why := barred.why(writer.get_extra_info("ssl_object")):
                log.warning("a connection is closed: its certificate %s", why)
                writer.transport.abort()

    async def _accept(self, sock: socket.socket) -> None:
        """Our own loop: asyncio.start_server() keeps to itself why a TLS handshake failed."""
        loop = asyncio.get_running_loop()
        with sock:
            while True:
                try:
                    connection, address = await loop.sock_accept(sock)
                except OSError as error:
                    log.error("cannot accept a peer: %s", error)
                    await asyncio.sleep(0.1)  # out of descriptors, most likely: do not spin
                    continue
                where = address[0] if isinstance(address, tuple) else "this machine"
                if not self._places.take(where):
                    self._full.warn(time.monotonic(), f"a connection from {where} refused: too many already")
                    connection.close()
                    continue
                task = asyncio.create_task(self._connected(connection, where))
                self._connections.add(task)
                task.add_done_callback(partial(self._left, where))

    def _left(self, where: str, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._places.give(where)

    async def _connected(self, sock: socket.socket, address: str) -> None:
        try:
            reader, writer = await self._open(sock)
        except (OSError, EOFError) as error:
            sock.close()
            log.warning("TLS with the peer at %s failed: %s", address, error)
            return
        self._writers.add(writer)
        try:
            await self._serve(reader, writer)
        except VmnetError as error:
            log.warning("peer at %s: %s", address, error)
        except (EOFError, OSError) as error:
            log.debug("peer at %s left: %s", address, error)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _open(self, sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, protocol = await loop.connect_accepted_socket(
            lambda: asyncio.StreamReaderProtocol(reader),
            sock,
            ssl=self.tls,
            ssl_handshake_timeout=frame.HANDSHAKE_S if self.tls else None,
            ssl_shutdown_timeout=1.0 if self.tls else None,
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        frame.tune(writer)
        return reader, writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(frame.HANDSHAKE_S):
                peer = await self._handshake(reader, writer)
        except TimeoutError:
            raise PeerError(f"did not say who it is within {frame.HANDSHAKE_S:g} s") from None
        slots = asyncio.Semaphore(frame.MAX_IN_FLIGHT)
        while True:
            message = await frame.read(reader)
            await slots.acquire()  # no further frame is read until a request has ended: back pressure
            task = asyncio.create_task(self._answer(peer, message, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: slots.release())

    async def _handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        hello = await frame.read(reader)
        try:
            check_version(hello, self._name)
            peer = self._identify(writer, one_line(hello.get("name")))
        except VmnetError as error:
            writer.write(frame.encode({"error": error_to_dict(error)}))
            raise
        writer.write(frame.encode(greeting(self._name)))
        return peer

    async def _answer(self, peer: str, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        try:
            answer = {"id": message.get("id"), "result": await self._call(peer, message)}
            data = frame.encode(answer)
        except VmnetError as error:
            data = frame.encode({"id": message.get("id"), "error": error_to_dict(error)})
        if writer.is_closing():
            return
        writer.write(data)
        if writer.transport.get_write_buffer_size() > MAX_UNREAD:
            log.warning("peer %s reads no answers: connection dropped", peer)
            writer.transport.abort()

    async def _call(self, peer: str, message: dict[str, Any]) -> dict[str, Any]:
        op, payload = message.get("op"), message.get("payload")
        if type(message.get("id")) is not int or not isinstance(op, str) or not isinstance(payload, dict):
            raise PeerError("garbled request", "are both hosts' vmnet of one version?")
        if op == "_clock":
            return {"ns": time.time_ns()}
        try:
            return await self._handler(peer, op, payload)
        except VmnetError:
            raise
        except Exception as error:
            log.exception("request %s of peer %s failed", one_line(op), peer)
            what = f"bug at {self._name} in '{one_line(op)}': {error!r}"
            raise VmnetError(what, "see its log; report it", ExitCode.INTERNAL) from None


def greeting(name: str) -> dict[str, Any]:
    """What either end says first."""
    return {"vmnet": frame.VERSION, "name": name}


def check_version(hello: dict[str, Any], us: str) -> None:
    """Raise PeerError unless the other end speaks our protocol version."""
    version = hello.get("vmnet")
    if version != frame.VERSION:
        shown = version if isinstance(version, int) else "none"
        raise PeerError(f"{us} speaks protocol {frame.VERSION}, its peer {shown}", "update the older vmnet")


def listening(address: str, port: int) -> socket.socket:
    """OSError if it cannot be."""
    sock = _create(address, port)
    sock.setblocking(False)
    return sock


def _create(address: str, port: int) -> socket.socket:
    if address != "::":
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=64)
    with suppress(OSError):  # both families on one socket; a kernel without IPv6 gets IPv4 alone
        return socket.create_server(("::", port), family=socket.AF_INET6, backlog=64, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port), backlog=64)
