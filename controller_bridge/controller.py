"""The controller: switches that connect to it on one side, the core's decisions on the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Final

from controller_bridge.address import Address
from controller_bridge.channel import Channel
from controller_bridge.core.core import Core, Send
from controller_bridge.core.desired import COOKIE, OWNER_MASK
from controller_bridge.fabric import End
from controller_bridge.openflow import action, multipart, packet
from controller_bridge.openflow.flow import Change, Flow
from controller_bridge.openflow.wire import Message, Type, message
from controller_bridge.paths import Changes
from controller_bridge.switch import Switch
from controller_bridge.topology import Place
from vmnet.errors import PeerError, UnavailableError, VmnetError

_CONFIG: Final = b"\0\0\xff\xff"
"""SET_CONFIG: fragments as they are, packets for us whole."""
_DELETED: Final = 1
_log = logging.getLogger(__name__)


class Controller:
    """``names``: of datapath identifiers; a switch that is not there is called by its identifier, in 16 hexadecimal digits.

    ``outside``: ports at which a hypervisor is, by name or number.
    """

    def __init__(
        self,
        core: Core,
        names: Mapping[int, str] | None = None,
        outside: Iterable[End] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.core = core
        self.switches: dict[str, Switch] = {}
        self.quiet = asyncio.Event()
        """Nothing is to be changed any more, for now."""
        self._names = dict(names or {})
        self._outside = tuple(outside)
        self._clock = clock
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._work = asyncio.Event()
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
                    self._servers.append(
                        await loop.create_server(self._accept, one.host, one.port, ssl=context)
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

    # -- switches -------------------------------------------------------------------------------------------------------

    def _accept(self) -> Channel:
        name: list[str] = []
        channel = Channel(lambda said: self._message(name, said), lambda: self._lost(name, channel))
        self._spawn(self._welcome(channel, name))
        return channel

    async def _welcome(self, channel: Channel, name: list[str]) -> None:
        try:
            switch = await Switch.greet(channel)
            called = self._names.get(switch.features.datapath, f"{switch.features.datapath:016x}")
            channel.send(message(channel.version, Type.SET_CONFIG, channel.xid(), _CONFIG))
            ports, read = await asyncio.gather(switch.ports(), switch.flows(COOKIE, OWNER_MASK))
            flows = [one.flow for one in read]
            base = self.core.base(flows)
            await switch.change(base)
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
        own = {
            port
            for port in ports
            for one in self._outside
            if one.switch == called and one.port in (port.name, str(port.number))
        }
        self.core.outside |= {Place(called, port.number) for port in own}
        every: list[Flow] = [*flows, *(one.flow for one in base)]
        self._perform(self.core.switch_up(called, switch.features.datapath, ports, every, self._clock()))
        self._look()

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
            self._perform(self.core.packet(Place(name[0], found.in_port), found.data, self._clock()))
        elif said.type == Type.PORT_STATUS:
            if len(said.body) < 8:
                raise PeerError("a port's status is cut off")
            port, _size = multipart.port_at(said.version, said.body, 8)
            self.core.port(name[0], port, said.body[0] == _DELETED)
        if self.core.dirty:
            self._look()

    def _perform(self, sends: Iterable[Send]) -> None:
        for one in sends:
            switch = self.switches.get(one.place.switch)
            if switch is not None:
                with contextlib.suppress(UnavailableError):
                    switch.send_packet((action.output(one.place.port),), one.frame)

    # -- tables ---------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Something has happened: there may be something to do, now or at another time than was thought."""
        if self.core.dirty:
            self.quiet.clear()
        self._work.set()
        self._tick()

    def _tick(self) -> None:
        now = self._clock()
        self._perform(self.core.tick(now))
        if self._timer is not None:
            self._timer.cancel()
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

    async def _update(self) -> None:
        """One level after the other; what happens meanwhile is looked at afterwards."""
        for level in self.core.changes(self._clock()):
            if not await self._level(level):
                self.core.dirty = True
                return

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
        except VmnetError as error:
            _log.warning("switch %s: %s; it is connected to anew", name, error)
            switch.channel.abort(str(error))
            return False
        self.core.done(name, changes)
        return True
