"""The two connections that come from a router's VM. The daemon's loop only hears of them; a thread does the work (``worker``)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dom0.claim import field
from dom0.dataplane.grace import wait_for_hands
from dom0.dataplane.netns import call as call_in
from dom0.fib import listeners, marks, tcp_repair
from dom0.fib.agent_state import AgentReport, AgentState, Interfaces
from dom0.fib.fib import Fib
from dom0.fib.link import VmLink
from dom0.fib.message import MalformedError, TooManyError
from dom0.fib.session import AgentSession, FpmSession, Session
from dom0.fib.settings import FibSettings
from dom0.fib.worker import Worker
from vmnet.errors import PeerError

_LOG = logging.getLogger(__name__)
_KINDS = ("agent", "fpm")
_PIECES = 8
_AFTER_ERROR_S = 1.0
_BUSY_S, _MOST_AT_ONCE = 1.0, 8
"""So many connections of a kind within so long are too many."""
_REST_S = 5.0
_END = object()


class Sessions:
    """One connection of each kind, the newest. ``on_synced``: called once, when a whole table (and the addresses, if an agent tells of
    them) is in the kernel. ``on_overfull``: the router has more routes than it may have, and why; empty: a whole table is in again.
    ``bytes_read`` counts, ``first_byte_at`` is by the loop's clock."""

    def __init__(
        self,
        fib: Fib,
        netns: str,
        address: str,
        device: str,
        settings: FibSettings,
        *,
        on_change: Callable[[bytes], None],
        on_link: Callable[[VmLink], None],
        on_addresses: Callable[[Interfaces], None],
        on_synced: Callable[[], None],
        on_report: Callable[[AgentReport], None] = lambda _report: None,
        on_overfull: Callable[[str], None] = lambda _why: None,
    ) -> None:
        self.bytes_read = 0
        self.first_byte_at: float | None = None
        self._fib = fib
        self._place = netns, address, device
        self._settings = settings
        self._on_change, self._on_link, self._on_addresses, self._on_synced = (
            *(on_change, on_link, on_addresses, on_synced),
        )
        self._on_report, self._on_overfull = on_report, on_overfull
        self._worker: Worker | None = None
        self._working: set[Session] = set()
        self._listeners: dict[str, socket.socket] = {}
        self._accepted: dict[str, deque[float]] = {kind: deque(maxlen=_MOST_AT_ONCE) for kind in _KINDS}
        """When connections came, by the loop's clock."""
        self._sessions: dict[str, Session] = {}
        self._routes_whole = self._synced = self._frozen = False
        self._routes_from = 0.0
        self._sweep: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    @property
    def _work(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("not started")
        return self._worker

    async def start(self) -> None:
        """OSError if the address or the device is not there."""
        netns, address, device = self._place
        worker = self._worker = Worker()
        self._fib.on_change = lambda changed: worker.tell(self._on_change, changed)
        ports = {"agent": self._settings.agent_port, "fpm": self._settings.fpm_port}
        try:
            self._fib.besides = listeners.index_of(netns, device)
            for kind, port in ports.items():
                self._listeners[kind] = listeners.listen(netns, address, device, port)
        except OSError:
            await self.close()
            raise
        self._routes_from = self._loop.time() + self._settings.addresses_s
        self._watch()
        self._tend()

    def _watch(self) -> None:
        for kind, listener in self._listeners.items():
            self._loop.add_reader(listener, self._accept, kind)
        for session in self._sessions.values():
            self._read_from(session)

    def _unwatch(self) -> None:
        for one in (*self._listeners.values(), *(session.connection for session in self._sessions.values())):
            self._loop.remove_reader(one)

    def _accept(self, kind: str) -> None:
        self._pause_if_busy(kind)
        try:
            connection, _ = self._listeners[kind].accept()
        except OSError:
            return
        with contextlib.suppress(OSError):
            listeners.keep_alive(connection)
        self._end(kind, "a newer one came")
        self._add(kind, self._made(kind, connection))

    def _pause_if_busy(self, kind: str) -> None:
        """A router that connects more than some times a second waits for the next one: each costs a state, and lines in the log."""
        now = self._loop.time()
        recent = self._accepted[kind]
        recent.append(now)
        if len(recent) == recent.maxlen and now - recent[0] < _BUSY_S:
            _LOG.warning(
                "%s: %d connections within a second: the next one waits", self._place[0], len(recent)
            )
            self._loop.remove_reader(self._listeners[kind])
            self._loop.call_later(_REST_S, self._accept_again, kind)

    def _accept_again(self, kind: str) -> None:
        if not self._frozen and kind in self._listeners:
            self._loop.add_reader(self._listeners[kind], self._accept, kind)

    def _made(self, kind: str, connection: socket.socket) -> Session:
        if kind == "fpm":
            return FpmSession(connection, self._fib, self._loop.time())
        work = self._work
        state = AgentState(
            self._fib,
            lambda link: work.tell(self._on_link, link),
            lambda addresses: work.tell(self._on_addresses, addresses),
            lambda: work.tell(self._agent_complete),
            lambda report: work.tell(self._on_report, report),
        )
        return AgentSession(connection, state)

    def _add(self, kind: str, session: Session) -> None:
        self._sessions[kind] = session
        _LOG.info("%s: the router's %s is connected", self._place[0], session.name)
        self._read_from(session)

    def _read_from(self, session: Session) -> None:
        """Routes wait a moment for the addresses by which their gateways are reached."""
        if session in self._working or self._frozen:
            return
        if (
            isinstance(session, FpmSession)
            and not self._addresses_in()
            and self._loop.time() < self._routes_from
        ):
            return
        self._loop.add_reader(session.connection, self._readable, session)

    def _addresses_in(self) -> bool:
        agent = self._sessions.get("agent")
        return agent is not None and agent.complete

    def _readable(self, session: Session) -> None:
        self._loop.remove_reader(session.connection)
        self._working.add(session)
        work = self._work.start(self._take, session, self._loop)
        work.add_done_callback(lambda done: self._taken(session, done))

    def _take(self, session: Session, loop: asyncio.AbstractEventLoop) -> str:
        """In the thread: what has come, a few pieces of it. Why the session is over; empty if it is not."""
        for _ in range(_PIECES):
            try:
                data = session.connection.recv(self._settings.read_bytes)
            except (BlockingIOError, InterruptedError):
                return ""
            except OSError as error:
                return str(error)
            if not data:
                return "it closed the connection"
            if not self.bytes_read:
                self.first_byte_at = loop.time()
            self.bytes_read += len(data)
            try:
                session.feed(data, loop.time())
            except TooManyError as error:
                self._work.tell(self._on_overfull, str(error))
                return str(error)
            except MalformedError as error:
                return f"what it sends makes no sense: {error}"
        return ""

    def _taken(self, session: Session, done: asyncio.Future[str]) -> None:
        self._working.discard(session)
        if done.cancelled():
            return
        why = f"an error of ours: {done.exception()!r}" if done.exception() else done.result()
        if why:
            self._ended(session, why)
        elif session in self._sessions.values():
            self._read_from(session)
            if self._fib.holds:
                self._tend_in(self._settings.hold_s)

    def _ended(self, session: Session, why: str) -> None:
        for kind, one in self._sessions.items():
            if one is session:
                self._end(kind, why)
                return

    def _end(self, kind: str, why: str) -> None:
        session = self._sessions.pop(kind, None)
        if session is None:
            return
        _LOG.warning("%s: the router's %s is disconnected: %s", self._place[0], session.name, why)
        self._loop.remove_reader(session.connection)
        session.connection.close()

    def _tend_in(self, delay_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._tend)

    def _tend(self) -> None:
        """What the clock brings about."""
        self._timer = None
        fpm = self._sessions.get("fpm")
        work = self._work.start(self._tended, None if self._frozen else fpm, self._loop.time())
        work.add_done_callback(lambda done: self._after_tending(fpm, done))

    def _tended(self, fpm: Session | None, now: float) -> tuple[float, bool, bool]:
        """In the thread: when to be called again, whether the table is whole now, whether routes were lost."""
        lost = self._fib.lost
        delay_s = self._fib.tend(self._settings.hold_s)
        try:
            whole = fpm is not None and fpm.whole(now, self._settings)
        except OSError:
            whole = False
        return delay_s, whole, self._fib.lost > lost

    def _after_tending(self, fpm: Session | None, done: asyncio.Future[tuple[float, bool, bool]]) -> None:
        if done.cancelled() or not self._listeners:
            return
        if done.exception():
            _LOG.error("%s: %r", self._place[0], done.exception())
            self._tend_in(_AFTER_ERROR_S)
            return
        delay_s, whole, lost = done.result()
        if self._timer is None:
            self._tend_in(delay_s)
        if fpm is None or fpm is not self._sessions.get("fpm"):
            return
        if lost:
            self._end("fpm", "too many routes were refused to remember them: all of them anew")
            return
        self._read_from(fpm)
        if whole:
            self._begin_sweep()

    def _agent_complete(self) -> None:
        """Its full state is in."""
        agent, fpm = self._sessions.get("agent"), self._sessions.get("fpm")
        if agent is not None and _brings_whole_table(agent):
            self._begin_sweep()
        if fpm is not None and not self._frozen:
            self._read_from(fpm)
        self._maybe_synced()

    def _begin_sweep(self) -> None:
        if self._sweep:
            self._sweep.cancel()
        self._sweep = self._loop.create_task(self._swept())

    async def _swept(self) -> None:
        """Gives way after every piece, and up when a new generation begins."""
        generation = self._fib.generation
        steps = self._fib.sweep()
        try:
            while await self._work.start(next, steps, _END) is not _END:
                if self._fib.generation != generation:
                    return
        except OSError as error:
            _LOG.error("%s: stale routes stay: %s", self._place[0], error)
            return
        self._routes_whole = True
        self._on_overfull("")
        self._maybe_synced()

    def _maybe_synced(self) -> None:
        agent = self._sessions.get("agent")
        if self._routes_whole and not self._synced and (agent is None or agent.complete):
            self._synced = True
            self._on_synced()

    def links_changed(self) -> None:
        """Interfaces in the namespace have changed: what waited for them is tried at once."""
        self._fib.hurry()
        self._tend_in(0)

    async def freeze(self) -> list[dict[str, Any]]:
        """The connections as they stand, for ``thaw`` on another host. Nothing goes in or out; then ``unfreeze`` or ``close``.

        A connection that cannot be frozen is not among them: the router will make it again.
        """
        self._frozen = True
        self._unwatch()
        if self._sweep:
            self._sweep.cancel()
        await self._work.idle()
        found = []
        for session in self._sessions.values():
            tcp_repair.shut(session.connection)
        await asyncio.to_thread(wait_for_hands)
        for kind, session in list(self._sessions.items()):
            try:
                tcp = tcp_repair.frozen(session.connection)
            except OSError as error:
                self._end(kind, f"it cannot be frozen: {error}")
                continue
            generation = self._fib.generation
            found.append(
                {
                    "tcp": tcp.to_json(),
                    "generation": -1 if generation is None else generation,
                    **session.to_json(),
                }
            )
        await self._work.start(self._fib.tend, 0)
        return found

    async def unfreeze(self) -> None:
        """They go on here."""
        for kind, session in list(self._sessions.items()):
            try:
                tcp_repair.melt(session.connection)
            except OSError as error:
                self._end(kind, f"it cannot go on: {error}")
        self._frozen = False
        self._watch()
        if any(_brings_whole_table(one) for one in self._sessions.values()):
            self._begin_sweep()

    async def thaw(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on with another host's connections, after its table was installed here.

        One that fails is left to the router to make again.
        Raises PeerError for states that make no sense.
        """
        for state in states[: len(_KINDS)]:
            kind = field(state, "kind", str)
            tcp = state.get("tcp")
            if kind not in _KINDS or not isinstance(tcp, dict):
                raise PeerError("the peer's session is neither an agent's nor FPM's")
            await self._thaw(kind, state, tcp_repair.parse(tcp))
        self._maybe_synced()

    async def _thaw(self, kind: str, state: Mapping[str, Any], tcp: tcp_repair.TcpState) -> None:
        netns, address, device = self._place
        ports = {"agent": self._settings.agent_port, "fpm": self._settings.fpm_port}
        if (tcp.local, tcp.local_port) != (address, ports[kind]):
            raise PeerError(
                f"the peer's {kind} session is with {tcp.local} port {tcp.local_port}, not with us"
            )
        generation = field(state, "generation", int, -1, marks.COUNT - 1)
        try:
            connection = call_in(netns, functools.partial(tcp_repair.thaw, tcp, device))
            listeners.keep_alive(connection)
        except OSError as error:
            _LOG.warning("%s: the router's %s session could not be taken over: %s", netns, kind, error)
            return
        if generation >= 0 and self._fib.generation != generation:
            await self._work.start(self._fib.resume, generation)
        self._end(kind, "another host's was taken over")
        session = self._made(kind, connection)
        try:
            session.restore(state)
        except PeerError:
            connection.close()
            raise
        self._add(kind, session)
        if _brings_whole_table(session):
            self._begin_sweep()

    async def close(self) -> None:
        """Routes stay; frozen connections go without a word, others are closed."""
        self._frozen = True
        self._unwatch()
        for task in (self._sweep, self._timer):
            if task:
                task.cancel()
        listening, self._listeners = list(self._listeners.values()), {}
        await self._work.idle()
        for one in (*listening, *(session.connection for session in self._sessions.values())):
            one.close()
        self._sessions.clear()
        self._fib.on_change = _to_nobody
        self._work.close()


def _to_nobody(_changed: bytes) -> None:
    """No loop listens any more."""


def _brings_whole_table(session: Session) -> bool:
    return session.complete and (isinstance(session, FpmSession) or session.state.tells_routes)
