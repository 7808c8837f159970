"""One OpenFlow connection: frames in and out, answers to who asked, echoes. Knows nothing of what is said."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from controller_bridge.openflow import bundle as bundles
from controller_bridge.openflow import hello
from controller_bridge.openflow.hello import Refusal
from controller_bridge.openflow.wire import V13, V14, Framer, Message, Type, message
from vmnet.errors import PeerError, RefusedError, UnavailableError, WaitTimeoutError

VERSIONS: Final = (V13, V14)
ANSWER_S: Final = 10.0
_QUIET_S: Final = 5.0
"""After so long without a word the other side is asked whether it is there; after three times that it is not."""
_MOST_UNSENT_BYTES: Final = 64 << 20
_MOST_ECHO_BYTES: Final = 1 << 20
"""Of answers to echo requests that the other side has not read: a switch asks for some bytes every few seconds."""
_MOST_ANSWER_BYTES: Final = 256 << 20
"""Of one question: a million flows."""
CLOSE_S: Final = 5.0
"""What is unsent when we close has so long to go out."""
_log = logging.getLogger(__name__)


@dataclass
class _Question:
    """``more``: whether an answer is not the last of several. ``refusals`` of what was sent under its xid."""

    answers: asyncio.Future[list[Message]]
    more: Callable[[Message], bool]
    got: list[Message] = field(default_factory=list)
    size_bytes: int = 0


class Channel(asyncio.Protocol):
    """``on_message`` gets what nobody asked for; ``on_lost`` is called once, however it ends."""

    def __init__(
        self,
        on_message: Callable[[Message], None],
        on_lost: Callable[[], None],
        versions: tuple[int, ...] = VERSIONS,
        close_s: float = CLOSE_S,
    ) -> None:
        self.version = 0
        self.refused: dict[int, list[Refusal]] = {}
        """By xid, of messages that have no answer of their own, while somebody listens for it."""
        self._on_message, self._on_lost, self._versions = on_message, on_lost, versions
        self._framer = Framer()
        self._questions: dict[int, _Question] = {}
        self._xids = itertools.count(1)
        self._transport: asyncio.Transport | None = None
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room = asyncio.Event()
        self._room.set()
        self._quiet: asyncio.TimerHandle | None = None
        self._silences = 0
        self._echoed_bytes = 0
        self._close_s = close_s
        self._closing: asyncio.TimerHandle | None = None
        self._held: list[bytes | bytearray] | None = None
        self._why = "the switch closed the connection"

    # -- the connection ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_MOST_UNSENT_BYTES)
        transport.write(hello.hello(self._versions))
        self._listen_for_silence()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._quiet, self._closing):
            if timer is not None:
                timer.cancel()
        self._room.set()
        gone = UnavailableError(str(exc) if exc else self._why)
        waits: list[asyncio.Future[Any]] = [self._greeted, *(one.answers for one in self._questions.values())]
        for waiting in waits:
            if not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # whoever waits gets it; nobody has to
        self._questions.clear()
        self._on_lost()

    @property
    def tls(self) -> ssl.SSLObject | None:
        """None for a connection without TLS."""
        return None if self._transport is None else self._transport.get_extra_info("ssl_object")

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """What is sent while this is worked off goes out in one piece."""
        self._silences = 0
        self._held = []
        try:
            for one in self._framer.feed(data):
                self._take(one)
        except PeerError as error:
            self.abort(str(error))
        held, self._held = self._held, None
        if held:
            self._write(b"".join(held))

    def abort(self, why: str) -> None:
        """The connection cannot be used any more, and what is unsent is forgotten. Again: nothing."""
        if self._transport is None:
            return
        if not self._transport.is_closing():
            _log.warning("OpenFlow connection given up: %s", why)
            self._why = why
        self._transport.abort()

    def close(self) -> None:
        """What has been sent still goes out, if the other side reads it within ``close_s``."""
        if self._transport is None or self._closing is not None:
            return
        self._why = "the connection was closed by us"
        self._transport.close()
        self._closing = asyncio.get_running_loop().call_later(self._close_s, self._transport.abort)

    def _listen_for_silence(self) -> None:
        self._quiet = asyncio.get_running_loop().call_later(_QUIET_S, self._nothing_heard)

    def _nothing_heard(self) -> None:
        self._silences += 1
        if self._silences > 3:
            self.abort(f"the switch has said nothing for {_QUIET_S * 3:g} s")
            return
        if self._silences > 1 and self.version:
            self._write(message(self.version, Type.ECHO_REQUEST, 0))
        self._listen_for_silence()

    # -- what comes in ----------------------------------------------------------------------------------------------

    def _take(self, one: Message) -> None:
        if not self.version:
            self._greet(one)
        elif one.type == Type.ECHO_REQUEST:
            self._echo(one)
        elif one.xid in self._questions and one.type != Type.PACKET_IN:
            self._answer(self._questions[one.xid], one)
        elif one.type == Type.ERROR:
            self._refuse(hello.refusal(one))
        elif one.type != Type.ECHO_REPLY:
            self._on_message(one)

    def _echo(self, one: Message) -> None:
        """PeerError if the other side asks and asks, and reads no answer: they would fill our memory."""
        if self._transport is not None and not self._transport.get_write_buffer_size():
            self._echoed_bytes = 0
        self._echoed_bytes += len(one.body)
        if self._echoed_bytes > _MOST_ECHO_BYTES:
            raise PeerError("the switch sends echo requests and does not read the replies")
        self._write_later(message(self.version, Type.ECHO_REPLY, one.xid, one.body))

    def _greet(self, one: Message) -> None:
        self.version = hello.negotiate(one, self._versions)
        if not self._greeted.done():
            self._greeted.set_result(None)

    def _answer(self, question: _Question, one: Message) -> None:
        waiting = question.answers
        if one.type == Type.ERROR:
            if not waiting.done():
                waiting.set_exception(RefusedError(f"the switch refuses: {hello.refusal(one)}"))
            return
        question.size_bytes += len(one.body)
        if question.size_bytes > _MOST_ANSWER_BYTES:
            raise PeerError(f"an answer of the switch has more than {_MOST_ANSWER_BYTES >> 20} MiB")
        question.got.append(one)
        if not waiting.done() and not question.more(one):
            waiting.set_result(question.got)

    def _refuse(self, refusal: Refusal) -> None:
        listed = self.refused.get(refusal.xid)
        if listed is not None:
            listed.append(refusal)
        else:
            _log.warning("the switch refuses message %d: %s", refusal.xid, refusal)

    # -- what goes out ----------------------------------------------------------------------------------------------

    def xid(self) -> int:
        """A new one."""
        return next(self._xids) & 0xFFFFFFFF or self.xid()

    def send(self, data: bytes | bytearray) -> None:
        """UnavailableError if the connection has ended."""
        if self._transport is None or self._transport.is_closing():
            raise UnavailableError(self._why)
        self._write_later(data)

    def _write_later(self, data: bytes | bytearray) -> None:
        if self._held is not None:
            self._held.append(data)
        else:
            self._write(data)

    def _write(self, data: bytes | bytearray) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def room(self) -> None:
        """Until not too much is unsent."""
        await self._room.wait()

    async def greeted(self, limit_s: float = ANSWER_S) -> int:
        """The version spoken. PeerError, UnavailableError, or WaitTimeoutError if the other side says nothing."""
        async with _limited("the switch's hello", limit_s):
            await asyncio.shield(self._greeted)
        return self.version

    async def ask(
        self,
        data: bytes,
        xid: int,
        what: str,
        limit_s: float = ANSWER_S,
        more: Callable[[Message], bool] = lambda answer: False,
    ) -> list[Message]:
        """Send ``data``, whose last message bears ``xid``, and wait for its answers; ``what`` they are, for people.

        RefusedError if the switch answers with an error, UnavailableError if it goes, WaitTimeoutError.
        """
        question = _Question(asyncio.get_running_loop().create_future(), more)
        self._questions[xid] = question
        try:
            self.send(data)
            async with _limited(what, limit_s):
                return await question.answers
        finally:
            self._questions.pop(xid, None)

    async def request(self, kind: Type, body: bytes = b"", limit_s: float = ANSWER_S) -> Message:
        """One question, one answer."""
        xid = self.xid()
        sent = message(self.version, kind, xid, body)
        return (await self.ask(sent, xid, f"an answer to OpenFlow's {kind.name.lower()}", limit_s))[0]

    async def bundle(self, number: int, what: bundles.Control, limit_s: float = ANSWER_S) -> None:
        """RefusedError if the switch does not do it."""
        xid = self.xid()
        sent = bundles.control(self.version, xid, number, what)
        said = await self.ask(sent, xid, f"the bundle's {what.name.lower()}", limit_s)
        if bundles.answer(said[0]) != (number, bundles.Control(what + 1)):
            raise PeerError(f"the switch answers a bundle's {what.name.lower()} with something else")


@contextlib.asynccontextmanager
async def _limited(what: str, limit_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise WaitTimeoutError(f"{what} did not come within {limit_s:g} s") from None
