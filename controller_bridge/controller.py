"""The controller: switches that connect to it on one side, the core's decisions on the other."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from typing import Final

from controller_bridge.address import Address
from controller_bridge.channel import Channel
from controller_bridge.core.core import Core
from controller_bridge.core.marks import COOKIE, OWNER_MASK
from controller_bridge.core.member import Send
from controller_bridge.openflow import action, multipart, packet
from controller_bridge.openflow.flow import SAME_OWNER, Change, Command, Flow
from controller_bridge.openflow.wire import Message, Type, message
from controller_bridge.paths import Changes
from controller_bridge.switch import Switch, TableFullError
from controller_bridge.topology import Place
from vmnet.errors import PeerError, RefusedError, UnavailableError, VmnetError, WaitTimeoutError
from vmnet.peer import identity
from vmnet.peer.identity import switch_names

_CONFIG: Final = b"\0\0\xff\xff"
"""SET_CONFIG: fragments as they are, packets for us whole."""
_DELETED: Final = 1
MOST_GREETING: Final = 512
_TRIES: Final = 24
"""A switch that is full says so; halving what it is asked for, that is found out in half as many."""
_log = logging.getLogger(__name__)
_HANDSHAKE_S: Final = 5.0
_ALIVE_S: Final = 2.0
"""A switch that has connected anew has so long to answer by its earlier connection, if that is still good."""

SetUp = Callable[[Mapping[Place, Collection[bytes]]], Awaitable[None]]
"""Called with ports to other switches by which stations' packets go next, and the stations' MAC addresses."""


def _check_is(channel: Channel, called: str) -> None:
    """RefusedError unless the certificate is that of the switch which the connection says it is. Without TLS everybody is believed."""
    if channel.tls is None:
        return
    named = switch_names(channel.tls)
    if called not in named:
        raise RefusedError(
            f"what says that it is switch {called} has the certificate of {', '.join(named) or 'no switch'}",
            f"create one: vmnet pki switch {called} DIR",
        )


class Controller:
    """``names``: of datapath identifiers; a switch that is not there is called by its identifier, in 16 hexadecimal digits."""

    def __init__(
        self,
        core: Core,
        names: Mapping[int, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.core = core
        self.switches: dict[str, Switch] = {}
        self.quiet = asyncio.Event()
        """Nothing is to be changed any more, for now."""
        self._names = dict(names or {})
        self.known = set(self._names.values())
        """Switches that there should be, or have been."""
        self._clock = clock
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._work = asyncio.Event()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        """Whose turn it is to change tables: :meth:`lead` goes in between two levels of an update."""
        self._led = 0
        self._crowded: set[str] = set()
        self._links: set[tuple[Place, Place]] = set()
        self._greeting: list[Channel] = []
        """Connections whose switch is not known yet, oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, listen: Iterable[Address], tls: ssl.SSLContext | None = None) -> None:
        """UnavailableError if an address cannot be listened at."""
        loop = asyncio.get_running_loop()
        for one in listen:
            try:
                if one.kind == "unix":
                    self._servers.append(await loop.create_unix_server(self._accept, one.host))
                else:
                    context = tls if one.kind == "ssl" else None
                    limit_s = _HANDSHAKE_S if context is not None else None
                    self._servers.append(
                        await loop.create_server(
                            self._accept, one.host, one.port, ssl=context, ssl_handshake_timeout=limit_s
                        )
                    )
            except OSError as error:
                await self.close()
                raise UnavailableError(f"cannot listen at {one}: {error.strerror or error}") from None
        self._spawn(self._update_always())
        self._tick()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Switches go on by what they have been told."""
        if self._timer is not None:
            self._timer.cancel()
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        for switch in list(self.switches.values()):
            switch.close()

    def end(self, barred: identity.Barred) -> None:
        """Close the connections of switches whose certificates count no more."""
        for name, switch in list(self.switches.items()):
            if why := barred.why(switch.channel.tls):
                switch.channel.abort(f"the certificate of {name} {why}")

    def moves(self) -> bool:
        """Whether a VM is on its way, or has just come."""
        return bool(self.core.hosts.left)

    # -- switches -------------------------------------------------------------------------------------------------------

    def _accept(self) -> Channel:
        name: list[str] = []
        channel = Channel(lambda said: self._message(name, said), lambda: self._lost(name, channel))
        self._spawn(self._welcome(channel, name))
        return channel

    async def _greet(self, channel: Channel) -> Switch:
        """Those that have not said who they are are bounded: each takes memory for up to 10 s, and anybody may connect."""
        if len(self._greeting) >= MOST_GREETING:
            self._greeting[0].abort(
                f"{MOST_GREETING} others have connected since, and it has not said who it is"
            )
        self._greeting.append(channel)
        try:
            return await Switch.greet(channel)
        finally:
            self._greeting.remove(channel)

    async def _welcome(self, channel: Channel, name: list[str]) -> None:
        try:
            switch = await self._greet(channel)
            called = self._names.get(switch.features.datapath, f"{switch.features.datapath:016x}")
            _check_is(channel, called)
            await self._check_alone(called)
            channel.send(message(channel.version, Type.SET_CONFIG, channel.xid(), _CONFIG))
            ports, read = await asyncio.gather(switch.ports(), switch.flows(COOKIE, OWNER_MASK))
            flows = [one.flow for one in read]
            base = self.core.base(flows)
            flows = await self._begin(switch, base, flows)
        except VmnetError as error:
            _log.warning("a switch did not get far: %s", error)
            channel.close()
            return
        earlier = self.switches.get(called)
        if earlier is not None:
            _log.warning("switch %s has connected anew", called)
            self.core.switch_down(called)
            earlier.close()
        self.switches[called] = switch
        name.append(called)
        _log.info("switch %s: %d ports, %d flows of ours", called, len(ports), len(flows))
        self.known.add(called)
        every: list[Flow] = [*flows, *(one.flow for one in base)]
        self.perform(self.core.switch_up(called, switch.features.datapath, ports, every, self._clock()))
        self._look()

    async def _check_alone(self, called: str) -> None:
        """RefusedError if that switch is connected, and answers: whoever says that he is it does not throw it out."""
        earlier = self.switches.get(called)
        if earlier is None:
            return
        try:
            await earlier.channel.request(Type.ECHO_REQUEST, limit_s=_ALIVE_S)
        except VmnetError:
            return
        raise RefusedError(
            f"switch {called} is connected already, and answers: another connection of it is refused"
        )

    async def _begin(self, switch: Switch, base: list[Change], flows: list[Flow]) -> list[Flow]:
        """What has to be there before anything else; what is left of ``flows`` then. RefusedError if others leave no room for it."""
        try:
            await switch.change(base)
            return flows
        except TableFullError:
            spared = self.core.spared(flows, len(base))
            await switch.change(Change(Command.DELETE_STRICT, one, SAME_OWNER) for one in spared)
            await switch.change(base)
            return [one for one in flows if one not in spared]

    def _lost(self, name: list[str], channel: Channel) -> None:
        if name and self.switches.get(name[0]) is not None and self.switches[name[0]].channel is channel:
            _log.warning("switch %s has gone", name[0])
            del self.switches[name[0]]
            self.core.switch_down(name[0])
            self._look()

    def _message(self, name: list[str], said: Message) -> None:
        if not name:
            return
        if said.type == Type.PACKET_IN:
            found = packet.packet_in(said)
            waiting = self.core.waiting
            self.perform(self.core.packet(Place(name[0], found.in_port), found.data, self._clock()))
            if self.core.waiting > waiting:  # due before the time that was thought
                self._tick()
        elif said.type == Type.PORT_STATUS:
            if len(said.body) < 8:
                raise PeerError("a port's status is cut off")
            port, _size = multipart.port_at(said.version, said.body, 8)
            self.core.port(name[0], port, said.body[0] == _DELETED)
        self._tell()
        if self.core.dirty:
            self._look()

    def perform(self, sends: Iterable[Send]) -> None:
        """Does not wait for the switches. One that has gone gets nothing."""
        for one in sends:
            switch = self.switches.get(one.place.switch)
            if switch is not None:
                try:
                    switch.send_packet((action.output(one.place.port),), one.frame)
                except UnavailableError:
                    _log.debug("a packet for switch %s, which has gone", one.place.switch)

    async def send(self, sends: Collection[Send]) -> int:
        """As many as have left their switches when this returns: those of a switch that does not say so in time are not counted."""
        self.perform(sends)
        names = {one.place.switch for one in sends} & self.switches.keys()
        said = await asyncio.gather(
            *(self.switches[name].barrier() for name in names), return_exceptions=True
        )
        done = {name for name, error in zip(names, said, strict=True) if error is None}
        return sum(one.place.switch in done for one in sends)

    # -- tables ---------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Something has happened: there may be something to do, now or at another time than was thought."""
        if self.core.dirty:
            self.quiet.clear()
        self._work.set()
        self._tell()
        self._tick()

    def now_s(self) -> float:
        return self._clock()

    def _tick(self) -> None:
        now = self._clock()
        self.perform(self.core.tick(now))
        if self._timer is not None:
            self._timer.cancel()
        if self.core.dirty:
            self.quiet.clear()
        if self.core.dirty and now >= self.core.settled_at_s:
            self._work.set()
        delay_s = max(0.001, self.core.next_s(now) - now)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    async def _update_always(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self.core.dirty and self._clock() >= self.core.settled_at_s:
                await self._update()
            if not self.core.dirty:
                self.quiet.set()
            self._tell()

    async def _update(self) -> None:
        """One level after the other; what happens meanwhile is looked at afterwards."""
        async with self._turn:
            levels, led = self.core.changes(self._clock()), self._led
        self._complain()
        self._name_links()
        for level in levels:
            async with self._turn:
                if led != self._led or not await self._level(level):
                    self.core.dirty = True
                    return

    async def lead(self, macs: Collection[bytes], setup: SetUp | None = None) -> list[str]:
        """These stations' entries, now, before all others: done when the switches have confirmed. The ones that have not.

        ``setup``: frames that go by each new way before it is taken.
        """
        async with self._turn:
            self._led += 1
            for _ in range(_TRIES):
                if await self._levels(self.core.changes_of(macs, self._clock()), setup):
                    break
            else:
                self.core.dirty = True
        self._complain()
        self._look()
        return sorted((self.known - self.core.reachable(macs)).union(self.core.astray(macs)))

    async def _levels(self, levels: Iterable[Changes], setup: SetUp | None) -> bool:
        for level in levels:
            if setup is not None:
                await setup(self.core.new_ways(level))
            if not await self._level(level):
                return False
        return True

    async def _level(self, level: Changes) -> bool:
        """False if a switch did not do it: it is asked what it has, and all is thought through again."""
        results = await asyncio.gather(*(self._commit(*one) for one in level.items()))
        return all(results)

    async def _commit(self, name: str, changes: list[Change]) -> bool:
        switch = self.switches.get(name)
        if switch is None:
            return True  # it has gone: :meth:`switch_down` has been told
        try:
            await switch.commit(changes)
        except UnavailableError:
            return True
        except TableFullError as error:
            if self.core.full(name, changes):
                return False
            switch.channel.abort(str(error))
            return False
        except VmnetError as error:
            _log.warning("switch %s: %s; it is connected to anew", name, error)
            switch.channel.abort(str(error))
            return False
        if self.switches.get(name) is switch:
            self.core.done(name, changes)
        return True

    def _complain(self) -> None:
        """Of tables that have become too small, once."""
        crowded = {name for name, one in self.core.members.items() if one.left_out}
        for name in sorted(crowded - self._crowded):
            one = self.core.members[name]
            _log.warning(
                "switch %s: its table is full with %s entries of ours; %d more go by the controller",
                name,
                one.room.limit,
                one.left_out,
            )
        self._crowded = crowded

    def _name_links(self) -> None:
        """Each that is new, and each that has gone: one that nobody has cabled is two stations that repeat what switches send."""
        up = set(self.core.links.up())
        for one, other in sorted(up - self._links):
            _log.info("link %s:%d - %s:%d is up", *one, *other)
        for one, other in sorted(self._links - up):
            _log.warning("link %s:%d - %s:%d is down", *one, *other)
        self._links = up

    # -- waiting --------------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], what: str, limit_s: float) -> None:
        """WaitTimeoutError if it is not so in time."""
        try:
            async with asyncio.timeout(limit_s):
                while not condition():
                    await self._news.wait()
        except TimeoutError:
            raise WaitTimeoutError(f"{what} within {limit_s:g} s") from None

    def _tell(self) -> None:
        """Whoever waits looks again."""
        self._news.set()
        self._news.clear()
