"""libvirt for an asyncio program: events come in on the loop, calls go out on threads, and a restarted libvirtd is found again.

One thread runs libvirt's own event loop for the whole process. Works with the monolithic libvirtd and the modular daemons: the URI
decides. libvirt's documentation: event loop ``libvirt-event``, ``libvirt-domain`` (lifecycle details), QEMU events ``libvirt-qemu``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

from vmnet.errors import UnavailableError
from vmnet.hypervisor.events import DomainEvent, Happening

_LIFECYCLE = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: Happening.DEFINED,
    libvirt.VIR_DOMAIN_EVENT_STARTED: Happening.STARTED,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: Happening.SUSPENDED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: Happening.RESUMED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: Happening.STOPPED,
}
_DETAILS = {
    Happening.STARTED: {libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED: "migrated"},
    Happening.SUSPENDED: {
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED: "migrated",
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED: "paused",
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY: "postcopy",
    },
    Happening.RESUMED: {
        libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED: "migrated",
        libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY: "postcopy",
    },
    Happening.STOPPED: {
        libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: "migrated",
        libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "failed",
        libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shutdown",
        libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
        libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crashed",
    },
}
_KEEPALIVE_S, _KEEPALIVE_COUNT = 5, 3
_RETRY_S = (0.2, 0.5, 1.0, 2.0)
_start_loop = threading.Lock()
_loop_runs = False


def _run_events() -> None:
    """libvirt's event loop, once a process; must be registered before the first connection is opened."""
    global _loop_runs
    with _start_loop:
        if _loop_runs:
            return
        libvirt.virEventRegisterDefaultImpl()
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        threading.Thread(target=_forever, name="libvirt-events", daemon=True).start()
        _loop_runs = True


def _forever() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


class Connection:
    """One hypervisor. ``on_event`` is called on the asyncio loop; ``on_link(up)`` when the connection comes or goes."""

    def __init__(
        self,
        uri: str,
        on_event: Callable[[DomainEvent], None],
        on_link: Callable[[bool], None] = lambda up: None,
    ) -> None:
        self.uri = uri
        self._on_event = on_event
        self._on_link = on_link
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Any = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    async def start(self, wait_s: float) -> None:
        """Connect, and keep connected from then on. UnavailableError if there is no hypervisor within ``wait_s`` seconds."""
        self._loop = asyncio.get_running_loop()
        _run_events()
        first: asyncio.Future[None] = self._loop.create_future()
        self._keeper = asyncio.create_task(self._keep(first))
        try:
            await asyncio.wait_for(asyncio.shield(first), wait_s)
        except TimeoutError:
            raise UnavailableError(
                f"libvirt at {self.uri} does not answer within {wait_s:g} s",
                "is libvirtd (or virtqemud) running?",
            ) from None

    async def _keep(self, first: asyncio.Future[None]) -> None:
        attempt = 0
        while True:
            try:
                await asyncio.to_thread(self._open)
            except libvirt.libvirtError:
                await asyncio.sleep(_RETRY_S[min(attempt, len(_RETRY_S) - 1)])
                attempt += 1
                continue
            attempt = 0
            if not first.done():
                first.set_result(None)
            self._on_link(True)
            await self._lost.wait()
            self._lost.clear()
            self._connection = None
            self._on_link(False)

    def _open(self) -> None:
        connection = libvirt.open(self.uri)
        connection.setKeepAlive(_KEEPALIVE_S, _KEEPALIVE_COUNT)
        connection.registerCloseCallback(self._closed, None)
        register = connection.domainEventRegisterAny
        register(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle, None)
        with contextlib.suppress(libvirt.libvirtError):  # Xen has lifecycle events only
            register(None, libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, self._iteration, None)
            register(None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._job_completed, None)
            self._register_qemu(connection)
        self._connection = connection

    def _register_qemu(self, connection: Any) -> None:
        import libvirt_qemu

        for name, happening in (("STOP", Happening.GUEST_STOP), ("RESUME", Happening.GUEST_RESUME)):
            libvirt_qemu.qemuMonitorEventRegister(connection, None, name, self._qemu, happening, 0)

    def _closed(self, _connection: Any, _reason: int, _opaque: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._lost.set)

    def _emit(self, event: DomainEvent) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._on_event, event)

    def _lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        happening = _LIFECYCLE.get(event)
        if happening is None:
            return
        word = _DETAILS.get(happening, {}).get(detail, str(detail))
        self._emit(DomainEvent(happening, domain.UUIDString(), domain.name(), time.time_ns(), word))

    def _iteration(self, _connection: Any, domain: Any, iteration: int, _opaque: object) -> None:
        self._emit(
            DomainEvent(Happening.PASS, domain.UUIDString(), domain.name(), time.time_ns(), "", iteration)
        )

    def _job_completed(
        self, _connection: Any, domain: Any, parameters: dict[str, Any], _opaque: object
    ) -> None:
        downtime = int(parameters.get("downtime", 0))
        self._emit(
            DomainEvent(
                Happening.JOB_COMPLETED, domain.UUIDString(), domain.name(), time.time_ns(), "", downtime
            )
        )

    def _qemu(
        self,
        _connection: Any,
        domain: Any,
        _event: str,
        seconds: int,
        micros: int,
        _details: str,
        happening: Happening,
    ) -> None:
        stamp = (seconds * 1_000_000 + micros) * 1000
        self._emit(DomainEvent(happening, domain.UUIDString(), domain.name(), stamp))

    @property
    def up(self) -> bool:
        return self._connection is not None

    def handle(self) -> Any:
        """The libvirt connection; UnavailableError while libvirtd is away."""
        if self._connection is None:
            raise UnavailableError(
                f"libvirt at {self.uri} is away", "start libvirtd (or virtqemud) and try again"
            )
        return self._connection

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()
