"""One OpenFlow switch: what it has, and changes to its flows that are done when this says so."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from controller_bridge.address import Address
from controller_bridge.channel import ANSWER_S, Channel
from controller_bridge.openflow import bundle, flow, hello, multipart, packet
from controller_bridge.openflow.bundle import Control
from controller_bridge.openflow.flow import Change, FlowStats
from controller_bridge.openflow.hello import Features, Refusal
from controller_bridge.openflow.multipart import Part, Port
from controller_bridge.openflow.wire import Message, Type, message
from vmnet.errors import RefusedError, UnavailableError

_AT_ONCE: Final = 512
"""Changes encoded between two looks at what has come in: the switch works on the first while we encode the next."""
_PER_CHANGE_S: Final = 0.001
"""A slow switch's time for one change; added to what is waited for any answer."""


class TableFullError(RefusedError):
    """No room for more entries; in a bundle nothing has been changed."""


class Switch:
    """``channel`` has been greeted. ``features``: what the switch said it is."""

    def __init__(self, channel: Channel, features: Features) -> None:
        self.channel, self.features = channel, features
        self._bundles = itertools.count(1)

    @classmethod
    async def connect(
        cls,
        address: Address,
        tls: ssl.SSLContext | None = None,
        on_message: Callable[[Message], None] = lambda message: None,
        on_lost: Callable[[], None] = lambda: None,
        limit_s: float = ANSWER_S,
    ) -> Switch:
        """To a switch that listens, as Open vSwitch does at ``BRIDGE.mgmt``. UnavailableError if it does not."""
        loop = asyncio.get_running_loop()

        def channel() -> Channel:
            return Channel(on_message, on_lost)

        try:
            async with asyncio.timeout(limit_s):
                if address.kind == "unix":
                    _, made = await loop.create_unix_connection(channel, address.host)
                else:
                    _, made = await loop.create_connection(
                        channel, address.host, address.port, ssl=tls if address.kind == "ssl" else None
                    )
        except TimeoutError:
            raise UnavailableError(f"no connection to the switch at {address} within {limit_s:g} s") from None
        except OSError as error:
            raise UnavailableError(f"no switch at {address}: {error.strerror or error}") from None
        return await cls.greet(made, limit_s)

    @classmethod
    async def greet(cls, channel: Channel, limit_s: float = ANSWER_S) -> Switch:
        """The other end of ``channel`` says what it is. PeerError, WaitTimeoutError or UnavailableError if it does not."""
        try:
            await channel.greeted(limit_s)
            return cls(channel, hello.features(await channel.request(Type.FEATURES_REQUEST, limit_s=limit_s)))
        except BaseException:
            channel.close()
            raise

    def close(self) -> None:
        self.channel.close()

    # -- what it has ----------------------------------------------------------------------------------------------------

    async def _multipart(self, part: Part, body: bytes = b"", limit_s: float = ANSWER_S) -> list[bytes]:
        xid = self.channel.xid()
        sent = multipart.request(self.channel.version, xid, part, body)
        answers = await self.channel.ask(
            sent, xid, f"the switch's {part.name.lower()}", limit_s, lambda one: multipart.reply(one)[1]
        )
        return [multipart.reply(one)[2] for one in answers]

    async def ports(self) -> list[Port]:
        found: list[Port] = []
        for entries in await self._multipart(Part.PORT_DESC):
            found += multipart.ports_in(self.channel.version, entries)
        return found

    async def active(self, table: int = 0, limit_s: float = ANSWER_S) -> int:
        """How many entries there are in ``table``, whosever they are. PeerError if the switch does not say."""
        parts = await self._multipart(Part.TABLE, limit_s=limit_s)
        return multipart.active_in(b"".join(parts), table)

    async def flows(
        self, cookie: int = 0, mask: int = 0, table: int = flow.ALL_TABLES, limit_s: float = 60.0
    ) -> list[FlowStats]:
        """Those whose cookie has the bits of ``mask`` as in ``cookie``."""
        found: list[FlowStats] = []
        for entries in await self._multipart(Part.FLOW, flow.flow_query(cookie, mask, table), limit_s):
            found += flow.flows_in(entries)
        return found

    # -- what is changed ------------------------------------------------------------------------------------------------

    async def barrier(self, limit_s: float = ANSWER_S) -> None:
        """What was sent before has been dealt with. (That its datapath goes by it already is not said by that.)"""
        await self.channel.request(Type.BARRIER_REQUEST, limit_s=limit_s)

    async def change(self, changes: Iterable[Change]) -> int:
        """One after the other, and a barrier; how many. RefusedError if the switch refuses any: the others are done all the same."""
        xid = self.channel.xid()
        with self._refusals(xid) as refused:
            sent = await self._send(changes, lambda one: self._mod(xid, one))
            await self.barrier(ANSWER_S + _PER_CHANGE_S * sent)
            _raise_if(refused, sent)
        return sent

    async def commit(self, changes: Iterable[Change]) -> int:
        """All of them or none, in a bundle; how many. RefusedError if the switch refuses any (TableFullError: there is no room)."""
        number, xid = next(self._bundles), self.channel.xid()
        version = self.channel.version
        with self._refusals(xid) as refused:
            await self.channel.bundle(number, Control.OPEN_REQUEST)
            sent = await self._send(
                changes, lambda one: bundle.add(version, xid, number, self._mod(xid, one))
            )
            limit_s = ANSWER_S + _PER_CHANGE_S * sent
            # a message that is refused is not in the bundle, which would be done without it
            await self.channel.bundle(number, Control.CLOSE_REQUEST, limit_s)
            if refused:
                await self.channel.bundle(number, Control.DISCARD_REQUEST)
                _raise_if(refused, sent)
            try:
                await self.channel.bundle(number, Control.COMMIT_REQUEST, limit_s)
            except RefusedError:
                _raise_if(refused, sent)
                raise
        return sent

    def _mod(self, xid: int, one: Change) -> bytes:
        return flow.flow_mod(self.channel.version, xid, one.command, one.flow, one.mask)

    async def _send(self, changes: Iterable[Change], encode: Callable[[Change], bytes]) -> int:
        sent = 0
        for some in _batches(changes):
            self.channel.send(b"".join(map(encode, some)))
            sent += len(some)
            await asyncio.sleep(0)
            await self.channel.room()
        return sent

    @contextmanager
    def _refusals(self, xid: int) -> Iterator[list[Refusal]]:
        listed = self.channel.refused[xid] = []
        try:
            yield listed
        finally:
            del self.channel.refused[xid]

    def send_packet(self, actions: Iterable[bytes], data: bytes) -> None:
        """Out of the switch. UnavailableError if it has gone."""
        self.channel.send(packet.packet_out(self.channel.version, 0, actions, data))

    async def echo(self, limit_s: float = ANSWER_S) -> None:
        xid = self.channel.xid()
        sent = message(self.channel.version, Type.ECHO_REQUEST, xid)
        await self.channel.ask(sent, xid, "the switch's echo", limit_s)


def _batches(changes: Iterable[Change]) -> Iterator[list[Change]]:
    rest = iter(changes)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        yield some


def _raise_if(refused: list[Refusal], sent: int) -> None:
    if refused:
        kind = TableFullError if all(one.table_full for one in refused) else RefusedError
        raise kind(f"the switch refuses {len(refused)} of {sent} changes; the first: {refused[0]}")
