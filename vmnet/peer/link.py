"""One connection to a peer: handshake, requests under way, and the end of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vmnet.config import Config
from vmnet.errors import PeerError
from vmnet.peer import frame, identity
from vmnet.peer.server import check_version, greeting
from vmnet.wire import error_from_dict, one_line

NUDGE_S = (0.01, 0.02, 0.04, 0.08)
"""Pauses after which an answer that has not come is asked for again, in TCP's way."""
_NUDGE = {"id": 0, "op": "_clock", "payload": {}}  # nobody waits for number 0


class Link:
    """An authenticated connection. ``alive`` turns False for good when it ends, and every waiter is told why."""

    def __init__(self, what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """``what`` is at the other end: "peer b"."""
        self._what = what
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
                raise PeerError(f"lost the connection to {self._what} before '{op}' was sent")
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
        self._end(PeerError(f"the connection to {self._what} was closed by us"))

    @property
    def tls(self) -> ssl.SSLObject | None:
        found: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return found

    def drop(self) -> None:
        """As :meth:`close`, at once."""
        self._pump.cancel()
        self._end(PeerError(f"the connection to {self._what} was closed by us"))

    async def _read_answers(self) -> None:
        try:
            while True:
                self._deliver(await frame.read(self._reader))
        except (EOFError, OSError):
            self._end(PeerError(f"lost the connection to {self._what}", "it may or may not have done it"))
        except PeerError as error:
            self._end(PeerError(f"{self._what}: {error.message}", error.hint))

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
            waiter.set_exception(PeerError(f"{self._what} gave a garbled answer"))

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
    opening = asyncio.open_connection(
        peer.address,
        peer.port,
        ssl=context,
        server_hostname="" if context else None,
        local_addr=_from(config),
    )
    other = Other(
        f"peer {name}",
        f"at {peer.address} port {peer.port}",
        "vmnet-dom0d",
        lambda writer: identity.verify(config, writer, name),
    )
    link, said = await introduced(other, opening, config.host.name)
    if said != name:
        link.drop()
        raise PeerError(f"peer {name} says that it is '{said}'", "correct host.name there, or [peers] here")
    return link


@dataclass(frozen=True)
class Other:
    """Who is to be at the other end: "peer b", "at 10.0.0.2 port 6642", what runs there; ``verify`` raises PeerError if it is not."""

    what: str
    where: str
    program: str
    verify: Callable[[asyncio.StreamWriter], None]


async def introduced(
    other: Other, opening: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]], us: str
) -> tuple[Link, str]:
    """A connection that is being opened, when both ends have said who they are; and who the other says it is. Raises PeerError."""
    try:
        reader, writer = await opening
    except ssl.SSLError as error:
        raise _tls_failed(other, error) from None
    except OSError as error:
        raise PeerError(
            f"cannot reach {' '.join(filter(None, (other.what, other.where)))}: {error.strerror or error}",
            f"is its {other.program} running?",
        ) from None
    try:
        frame.tune(writer)
        said = await _introduce(other, us, reader, writer)
    except BaseException:
        writer.transport.abort()
        raise
    return Link(other.what, reader, writer), said


async def _introduce(
    other: Other, us: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> str:
    try:
        other.verify(writer)
        writer.write(frame.encode(greeting(us)))
        hello = await frame.read(reader)
    except ssl.SSLError as error:  # in TLS 1.3 the server's opinion of our certificate comes only now
        raise _tls_failed(other, error) from None
    except (EOFError, OSError):
        raise PeerError(
            f"{other.what} hung up on us", "its log says why (is our certificate of its CA, and valid?)"
        ) from None
    if "error" in hello:
        refusal = error_from_dict(hello["error"])
        raise PeerError(f"{other.what} refused us: {refusal.message}", refusal.hint)
    check_version(hello, us)
    return one_line(hello.get("name"))


def _tls_failed(other: Other, error: ssl.SSLError) -> PeerError:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason += f" ({error.verify_message})"  # revoked, expired, of another CA
    return PeerError(f"TLS with {other.what} failed: {reason}", "see `vmnet pki show` on both hosts")


def _from(config: Config) -> tuple[str, int] | None:
    """Come from the address that we listen on, so that peers see one address of us; None: any."""
    return None if config.listen.address in ("::", "0.0.0.0") else (config.listen.address, 0)
