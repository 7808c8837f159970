"""One connection to a peer: handshake, requests under way, and the end of it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Any

from vmnet.config import Config
from vmnet.errors import PeerError, VmnetError
from vmnet.peer import frame, identity
from vmnet.peer.server import check_version, greeting
from vmnet.wire import error_from_dict, one_line

NUDGE_S = (0.01, 0.02, 0.04, 0.08)
"""Pauses after which an answer that has not come is asked for again, in TCP's way."""
_NUDGE = {"id": 0, "op": "_clock", "payload": {}}  # nobody waits for number 0


class Link:
    """An authenticated connection. ``alive`` turns False for good when it ends, and every waiter is told why."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._name = name
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next = 0
        self._slots = asyncio.Semaphore(frame.MAX_IN_FLIGHT)
        self._pump = asyncio.create_task(self._read_answers())
        self.alive = True

    async def ask(self, op: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer; the caller sets the deadline. Raises what the peer raised."""
        async with self._slots:
            if not self.alive:
                raise PeerError(f"lost the connection to peer {self._name} before '{op}' was sent")
            self._next += 1
            number = self._next
            data = frame.encode({"id": number, "op": op, "payload": payload})
            answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            self._waiting[number] = answer
            nudging = asyncio.create_task(self._nudge())
            try:
                self._writer.write(data)
                return await answer
            finally:
                nudging.cancel()
                del self._waiting[number]

    async def _nudge(self) -> None:
        """Send something more while an answer is late.

        TCP finds the loss of a connection's last packet by a timer, 200 ms at least, and that of any other within a round trip
        (RFC 8985). A guest's switchover does not last 200 ms.
        """
        for pause_s in NUDGE_S:
            await asyncio.sleep(pause_s)
            if self.alive:
                self._writer.write(frame.encode(_NUDGE))

    async def close(self) -> None:
        """End the connection; whoever waits for an answer gets a PeerError."""
        self._pump.cancel()
        with suppress(asyncio.CancelledError):
            await self._pump
        self._end(PeerError(f"the connection to peer {self._name} was closed by us"))

    async def _read_answers(self) -> None:
        try:
            while True:
                self._deliver(await frame.read(self._reader))
        except (EOFError, OSError):
            self._end(
                PeerError(f"lost the connection to peer {self._name}", "it may or may not have done it")
            )
        except PeerError as error:
            self._end(PeerError(f"peer {self._name}: {error.message}", error.hint))

    def _deliver(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        waiter = self._waiting.get(number) if type(number) is int else None
        if waiter is None or waiter.done():
            return  # too late: its deadline passed
        result = message.get("result")
        if "error" in message:
            waiter.set_exception(error_from_dict(message["error"]))
        elif isinstance(result, dict):
            waiter.set_result(result)
        else:
            waiter.set_exception(PeerError(f"peer {self._name} gave a garbled answer"))

    def _end(self, error: PeerError) -> None:
        self.alive = False
        self._writer.close()
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(error)


async def connect(config: Config, name: str) -> Link:
    """Connect to a configured peer and make sure that it is the one. Raises PeerError; the caller sets a deadline."""
    peer = config.peers[name]
    context = identity.client_context(config.tls)
    try:
        reader, writer = await asyncio.open_connection(
            peer.address,
            peer.port,
            ssl=context,
            server_hostname="" if context else None,
            local_addr=_from(config),
        )
    except ssl.SSLError as error:
        raise _tls_failed(name, error) from None
    except OSError as error:
        where = f"peer {name} at {peer.address} port {peer.port}"
        raise PeerError(
            f"cannot reach {where}: {error.strerror or error}", "is its vmnet-dom0d running?"
        ) from None
    try:
        frame.tune(writer)
        await _introduce(config, name, reader, writer)
    except BaseException:
        writer.transport.abort()
        raise
    return Link(name, reader, writer)


async def _introduce(
    config: Config, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        identity.verify(config, writer, name)
        writer.write(frame.encode(greeting(config)))
        hello = await frame.read(reader)
    except ssl.SSLError as error:  # in TLS 1.3 the server's opinion of our certificate comes only now
        raise _tls_failed(name, error) from None
    except (EOFError, OSError):
        raise PeerError(
            f"peer {name} hung up on us", "its log says why (is our certificate of its CA, and valid?)"
        ) from None
    if "error" in hello:
        raise _refused(name, error_from_dict(hello["error"]))
    check_version(hello, config.host.name)
    if hello.get("name") != name:
        said = one_line(hello.get("name"))
        raise PeerError(f"peer {name} says that it is '{said}'", "correct host.name there, or [peers] here")


def _refused(name: str, error: VmnetError) -> PeerError:
    return PeerError(f"peer {name} refused us: {error.message}", error.hint)


def _tls_failed(name: str, error: ssl.SSLError) -> PeerError:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    return PeerError(f"TLS with peer {name} failed: {reason}", "see `vmnet pki show` on both hosts")


def _from(config: Config) -> tuple[str, int] | None:
    """Come from the address that we listen on, so that peers see one address of us; None: any."""
    return None if config.listen.address in ("::", "0.0.0.0") else (config.listen.address, 0)
