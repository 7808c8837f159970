"""Questions to and orders for one hypervisor, each a libvirt call on a thread with errors in vmnet's words."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt

from vmnet import router
from vmnet.errors import NotFoundError, RefusedError, UnavailableError, VmnetError, WaitTimeoutError
from vmnet.hypervisor.connection import Connection
from vmnet.hypervisor.definition import Definition
from vmnet.hypervisor.events import JobProgress
from vmnet.hypervisor.versions import version

_CALL_S = 20.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class DomainUsage:
    """``cpu_ns``: what all its processors have used since it started (virDomainGetInfo)."""

    memory_bytes: int
    cpu_ns: int


@dataclass(frozen=True)
class Defined:
    """``autostart``: it starts when the host does."""

    persistent: bool
    autostart: bool


@dataclass(frozen=True)
class DomainState:
    """``xml`` is the live domain's; ``running`` false: paused, or an incoming migration not resumed yet."""

    name: str
    uuid: str
    running: bool
    xml: str


def _translate(error: libvirt.libvirtError, what: str) -> VmnetError:
    code = error.get_error_code()
    text = f"{what}: {str(error).strip()}"
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return NotFoundError(text, "`virsh list --all` shows what there is")
    if code in (
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INTERNAL_ERROR,
    ):
        return UnavailableError(text, "libvirt's log on that host says more")
    return RefusedError(text)


def _close(opened: asyncio.Future[Any]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close()


class CutOffError(UnavailableError):
    """The call for a migration ended; perhaps because libvirt has gone away, which may go on with the migration."""


class Domains:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._spare: asyncio.Future[Any] | None = None

    async def _call(self, what: str, function: Callable[[Any], Result], limit_s: float = _CALL_S) -> Result:
        return await self._bounded(what, asyncio.to_thread(function, self._connection.handle()), limit_s)

    async def _bounded(self, what: str, answer: Awaitable[Result], limit_s: float = _CALL_S) -> Result:
        try:
            return await asyncio.wait_for(answer, limit_s)
        except libvirt.libvirtError as error:
            raise _translate(error, what) from None
        except TimeoutError:
            raise WaitTimeoutError(
                f"{what}: libvirt did not answer within {limit_s:g} s", "is libvirtd stuck?"
            ) from None

    async def describe(self, name_or_uuid: str) -> str:
        """The XML of a domain, live if it runs; NotFoundError if it is unknown."""

        def look(handle: Any) -> str:
            return str(_lookup(handle, name_or_uuid).XMLDesc(0))

        return await self._call(f"XML of VM {name_or_uuid!r}", look)

    async def set_metadata(self, name_or_uuid: str, element: str | None) -> None:
        """Put vmnet's element into the domain's metadata (None: take it out), for now and, if it is persistent, for good."""

        def change(handle: Any) -> None:
            domain = _lookup(handle, name_or_uuid)
            flags = libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0
            if domain.isPersistent():
                flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG
            kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
            domain.setMetadata(kind, element, None if element is None else router.PREFIX, router.URI, flags)

        await self._call(f"metadata of VM {name_or_uuid!r}", change)

    async def find(self, name_or_uuid: str) -> DomainState:
        """A running domain; NotFoundError if it is unknown or not running."""

        def look(handle: Any) -> DomainState:
            domain = _lookup(handle, name_or_uuid)
            if not domain.isActive():
                raise NotFoundError(
                    f"VM {domain.name()!r} is not running here", "start it first (`virsh start`)"
                )
            state, _reason = domain.state()
            return DomainState(
                domain.name(), domain.UUIDString(), state == libvirt.VIR_DOMAIN_RUNNING, domain.XMLDesc(0)
            )

        return await self._call(f"VM {name_or_uuid!r}", look)

    async def usage(self, uuid: str) -> DomainUsage:
        """What a domain takes of its host; NotFoundError if it is unknown."""

        def look(handle: Any) -> DomainUsage:
            _state, _most_kib, memory_kib, _cpus, cpu_ns = _lookup(handle, uuid).info()
            return DomainUsage(int(memory_kib) << 10, int(cpu_ns))

        return await self._call("what the VM takes", look)

    async def names(self) -> list[tuple[str, str]]:
        """(name, uuid) of every active domain."""
        return await self._call(
            "list of VMs", lambda handle: [(one.name(), one.UUIDString()) for one in handle.listAllDomains(1)]
        )

    def get_ready(self) -> None:
        """A migration is about to be asked for: open its connection meanwhile."""
        if self._spare is not None:  # nobody came for it, and it may be dead by now
            self._spare.add_done_callback(_close)
        self._spare = self._open_another()

    def _open_another(self) -> asyncio.Future[Any]:
        return asyncio.ensure_future(asyncio.to_thread(libvirt.open, self._connection.uri))

    async def defined(self, uuid: str) -> Defined:
        """NotFoundError if the VM is unknown."""

        def look(handle: Any) -> Defined:
            domain = _lookup(handle, uuid)
            persistent = bool(domain.isPersistent())
            return Defined(persistent, persistent and bool(domain.autostart()))

        return await self._call("how the VM is defined", look)

    async def start_with_host(self, uuid: str) -> None:
        """The VM, which is defined here, starts when the host does (``virsh autostart``)."""
        await self._call("autostart", lambda handle: _lookup(handle, uuid).setAutostart(1))

    async def redefine(self, uuid: str, change: Callable[[bytes], bytes | None]) -> None:
        """The VM's definition here becomes what ``change`` makes of its XML; None, or a VM that is not defined: it stays."""

        def run(handle: Any) -> None:
            domain = _lookup(handle, uuid)
            if not domain.isPersistent():
                return
            flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
            changed = change(domain.XMLDesc(flags).encode())
            if changed is not None:
                handle.defineXML(changed.decode())

        await self._call("definition", run)

    async def migrate(
        self, uuid: str, uri: str, migrate_uri: str | None, definition: Definition, limit_s: float
    ) -> None:
        """Live, peer to peer; returns when libvirt has finished. RefusedError with libvirt's reason if it failed; CutOffError.

        On a connection of its own: while a call lasts for seconds, others on the same connection were seen to wait for hundreds of
        milliseconds, and the switchover cannot.
        """
        spare, self._spare = self._spare or self._open_another(), None
        own = await self._bounded("migration", spare)
        asked = threading.Event()

        def run(_handle: Any) -> None:
            parameters = {libvirt.VIR_MIGRATE_PARAM_URI: migrate_uri} if migrate_uri else {}
            flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
            try:
                domain = _lookup(own, uuid)
                flags |= definition.flags(bool(domain.isPersistent()))
                asked.set()
                domain.migrateToURI3(uri, parameters, flags)
            finally:
                own.close()

        try:
            await self._call("migration", run, limit_s)
        except UnavailableError as error:
            if asked.is_set():
                raise CutOffError(error.message, error.hint) from None
            raise

    async def suspend(self, uuid: str) -> None:
        await self._call("suspend", lambda handle: _lookup(handle, uuid).suspend())

    async def resume(self, uuid: str) -> None:
        await self._call("resume", lambda handle: _lookup(handle, uuid).resume())

    async def abort_job(self, uuid: str) -> None:
        await self._call("abort of the migration", lambda handle: _lookup(handle, uuid).abortJob())

    async def set_max_downtime(self, uuid: str, milliseconds: int) -> None:
        await self._call(
            "max downtime", lambda handle: _lookup(handle, uuid).migrateSetMaxDowntime(milliseconds, 0)
        )

    async def progress(self, uuid: str) -> JobProgress:
        stats = await self._call("migration progress", lambda handle: _lookup(handle, uuid).jobStats(0))
        return _progress(stats)

    async def migratable_xml(self, uuid: str) -> str:
        return await self._call(
            "domain XML", lambda handle: str(_lookup(handle, uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE))
        )

    async def unsupported(self, arch: str, machine: str, driver: str) -> str:
        """Why this host cannot run such guests, in libvirt's words; "" if it can."""

        def ask(handle: Any) -> str:
            try:
                handle.getDomainCapabilities(None, arch or None, machine or None, driver or None, 0)
            except libvirt.libvirtError as error:
                return str(error).strip()
            return ""

        return await self._call("domain capabilities", ask)

    async def version(self) -> str:
        """Of libvirt."""
        return await self._call("libvirt version", lambda handle: version(handle.getLibVersion()))

    async def hypervisor_version(self) -> str:
        """Of QEMU or Xen. libvirtd may have to start its emulators for it, which takes long on a slow host."""
        return await self._call("hypervisor version", lambda handle: version(handle.getVersion()))


def _lookup(handle: Any, name_or_uuid: str) -> Any:
    if len(name_or_uuid) == 36:
        try:
            return handle.lookupByUUIDString(name_or_uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
                raise
    return handle.lookupByName(name_or_uuid)


def _progress(stats: dict[str, Any]) -> JobProgress:
    leaving = libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    # a backup or a dump is a job, too
    if (
        stats.get("type", 0) == libvirt.VIR_DOMAIN_JOB_NONE
        or stats.get(libvirt.VIR_DOMAIN_JOB_OPERATION, leaving) != leaving
    ):
        return JobProgress(active=False)
    return JobProgress(
        active=True,
        elapsed_ms=int(stats.get("time_elapsed", 0)),
        memory_total_bytes=int(stats.get("memory_total", 0)),
        memory_processed_bytes=int(stats.get("memory_processed", 0)),
        memory_remaining_bytes=int(stats.get("memory_remaining", 0)),
        memory_bps=int(stats.get("memory_bps", 0)),
        dirty_bps=int(stats.get("memory_dirty_rate", 0)) * int(stats.get("memory_page_size", 4096)),
        page_size_bytes=int(stats.get("memory_page_size", 4096)),
        passes=int(stats.get("memory_iteration", 0)),
        downtime_ms=int(stats.get("downtime", 0)),
        setup_ms=int(stats.get("setup_time", 0)),
    )
