"""``vmnet-dom0d``: opens what it needs, recovers what was under way, and serves until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from controller_bridge.rerouters.base import Rerouter, open_rerouter
from dom0 import certificate, doctor, elsewhere, recovery, shutdown, wiring
from dom0.context import Context
from dom0.control_server import ControlServer
from dom0.dataplane import kernel_limits, priority
from dom0.desk import Desk
from dom0.facts import Facts
from dom0.marks import HookMarks
from dom0.options import Options
from dom0.reach import tunnel_probe
from dom0.router.registry import Routers
from dom0.source import SourceMigration
from dom0.traffic import Traffic
from dom0.tunnel_filter import TunnelFilter
from vmnet import router, service_manager
from vmnet.config import Config
from vmnet.errors import ConfigError, ExitCode, NotFoundError, RefusedError, UnavailableError, VmnetError
from vmnet.hypervisor.connection import Connection
from vmnet.hypervisor.domains import Domains
from vmnet.machine import State
from vmnet.peer import PeerClient, PeerServer
from vmnet.peer.credentials import Credentials
from vmnet.peer.identity import Barred
from vmnet.plan import plan_lines
from vmnet.store import Store, StoreSettings, launch

log = logging.getLogger(__name__)
# libvirtd may start with us at boot; its first start on a slow host takes half a minute (it asks every QEMU what it can do).
_LIBVIRT_S = 60.0
_DAY_S = 86_400.0
_EVENTS_KEPT = 1000
Emit = Callable[[dict[str, Any]], Awaitable[None]]


class Daemon:
    def __init__(self, config: Config) -> None:
        self.config = config
        self._watchers: dict[str, set[asyncio.Queue[dict[str, Any]]]] = {}
        self._past: dict[str, deque[dict[str, Any]]] = {}
        self._stop = asyncio.Event()
        self._looking: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. VmnetError if something it needs is not there at the start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # nothing to read again without peers
        async with contextlib.AsyncExitStack() as stack:
            await self._open(stack)
            gc.collect()
            gc.freeze()  # what is loaded now stays: to look through all of it takes some 10 ms, in the middle of a switchover
            log.info("host %s is ready", self.config.host.name)
            service_manager.ready(f"host {self.config.host.name} is ready")
            await self._stop.wait()
            log.info("stopping")
            service_manager.stopping()
            await shutdown.end_migrations(list(self.desk.migrations.values()))

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        limits = await self._within_limits()
        config = self.config
        if config.store.remotes:  # an embedded one has a lock of its own
            stack.callback((await asyncio.to_thread(launch.lock, self._store_settings())).close)
        await self._look_at_certificate()
        rerouter = await self._rerouter(stack)
        store = await Store.open(self._store_settings())
        stack.push_async_callback(store.close)
        connection = Connection(
            config.libvirt.uri, lambda event: self.desk.hypervisor_event(event), self._link
        )
        peers = {name: PeerClient(config, name) for name in config.peers}
        for peer in peers.values():
            stack.push_async_callback(peer.close)
        marks = HookMarks(config.daemon.socket.parent)
        marks.clear()
        priority.calm()
        stack.callback(priority.calm)
        domains = Domains(connection)
        routers = Routers(config, domains, store)
        self.context = Context(
            config,
            store,
            connection,
            domains,
            marks,
            routers,
            TunnelFilter(config),
            peers,
            self._publish,
            rerouter=rerouter,
            limits=limits,
        )
        self.desk = Desk(self.context)
        self.facts, self.traffic = Facts(self.context, self.desk), Traffic(self.context)
        await connection.start(_LIBVIRT_S)
        stack.push_async_callback(connection.close)
        await recovery.recover_all(self.context)
        await self.context.tunnel_filter.install()
        await self.desk.make_ready()
        await elsewhere.refresh(self.context)
        stack.push_async_callback(routers.close)
        await routers.start()
        server = PeerServer()
        if config.peers:
            await server.start(config, self._peer)
            stack.push_async_callback(server.stop)
            self._follow_certificates(stack, server)
        control = ControlServer(config.daemon.socket, self.desk.hook, self._request)
        await control.start()
        stack.push_async_callback(control.stop)

    def _follow_certificates(self, stack: contextlib.AsyncExitStack, server: PeerServer) -> None:
        """Once a minute, and at SIGHUP."""

        def end(barred: Barred) -> None:
            server.end(barred)
            for one in self.context.peers.values():
                one.end(barred)

        credentials = Credentials(self.config.tls, [server.tls], end, lambda: bool(self.desk.migrations))
        credentials.follow()
        stack.callback(credentials.close)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, credentials.look)

    async def _look_at_certificate(self) -> None:
        """At the start, and once a day."""
        for problem in await asyncio.to_thread(certificate.problems, self.config.tls):
            log.warning("%s", problem)
        asyncio.get_running_loop().call_later(_DAY_S, self._spawn_look)

    def _spawn_look(self) -> None:
        self._looking = asyncio.ensure_future(self._look_at_certificate())

    async def _within_limits(self) -> kernel_limits.KernelLimits:
        """From now on the configuration asks for no longer queue than the kernel makes."""
        config = self.config
        try:
            limits = await asyncio.to_thread(kernel_limits.probe, config.hold.max_packets)
        except OSError as error:
            raise UnavailableError(
                f"cannot make a tap to hold packets: {error.strerror}",
                "load the module (`modprobe tun`); the daemon needs root",
            ) from None
        if limits.short:
            log.warning("%s (hold.max_packets: %d)", limits.note(config.host.name), limits.wanted_packets)
        self.config = replace(config, hold=replace(config.hold, max_packets=limits.queue_packets))
        return limits

    async def _rerouter(self, stack: contextlib.AsyncExitStack) -> Rerouter | None:
        wanted = self.config.rerouter
        if wanted.kind is None:
            return None
        try:
            rerouter = open_rerouter(wanted.kind, wanted.settings)
        except ConfigError as error:
            raise ConfigError(f"[rerouter]: {error.message}", error.hint) from None
        stack.push_async_callback(rerouter.close)
        return rerouter

    def _store_settings(self) -> StoreSettings:
        config = self.config
        return StoreSettings(
            host=config.host.name,
            state_dir=config.daemon.state_dir,
            run_dir=config.daemon.socket.parent,
            remotes=config.store.remotes,
            tls_ca=config.tls.ca,
            tls_certificate=config.tls.certificate,
            tls_key=config.tls.key,
        )

    def _link(self, up: bool) -> None:
        log.info("libvirt at %s %s", self.config.libvirt.uri, "answers" if up else "is away: waiting for it")
        if not up:
            for one in self.desk.migrations.values():
                one.lose_hypervisor()

    # -- what happens, told to whoever watches -----------------------------------------------------------------------

    def _publish(self, migration_id: str, event: dict[str, Any]) -> None:
        self._past.setdefault(migration_id, deque(maxlen=_EVENTS_KEPT)).append(event)
        for queue in self._watchers.get(migration_id, ()):
            queue.put_nowait(event)
        while len(self._past) > 32:
            self._past.pop(next(iter(self._past)))

    # -- requests ------------------------------------------------------------------------------------------------------

    async def _peer(self, peer: str, op: str, message: dict[str, Any]) -> dict[str, Any]:
        if op == "facts":
            return (await self.facts.own()).to_json()
        if op == tunnel_probe.OP:
            return await tunnel_probe.answer(self.context, peer, message)
        return await self.desk.peer(peer, op, message)

    async def _request(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        op = request.get("op")
        if op == "ping":
            return {"host": self.config.host.name, "libvirt": self.context.connection.up}
        if op == "status":
            return await self._status()
        if op == "plan":
            return await self._plan(request)
        if op == "migrate":
            return await self._migrate(request, emit)
        if op == "abort":
            record = self.desk.abort(_text(request, "vm"))
            return {"vm": record.name, "id": record.id}
        if op == "router-add":
            return await self._add_router(request)
        if op == "router-remove":
            return await self.context.routers.remove(_text(request, "vm"))
        if op == "router-list":
            return {"host": self.config.host.name, "routers": await self.context.routers.status()}
        if op == "facts":
            return await self.facts.of_vm(_text(request, "vm"))
        if op == "traffic":
            return await self.traffic.measure(_text(request, "vm"), request.get("seconds"))
        if op == "doctor":
            return {"checks": await doctor.examine(self.context)}
        raise RefusedError(
            f"the daemon knows no request {op!r}", "is it older than this command?", ExitCode.USAGE
        )

    async def _status(self) -> dict[str, Any]:
        store = self.context.store
        return {
            "host": self.config.host.name,
            "libvirt": self.context.connection.up,
            "migrations": [one.record.to_json() for one in self.desk.migrations.values()],
            "history": [one.to_json() for one in await store.migration_history(20)],
            "bindings": [one.to_json() for one in await store.bindings()],
        }

    async def _plan(self, request: dict[str, Any]) -> dict[str, Any]:
        name, destination = _text(request, "vm"), _text(request, "destination")
        options = Options.from_request(request)
        info, notes = await self.desk.plan(name, destination, options.allow_unprotected)
        return {
            "vm": info.name,
            "uuid": info.uuid,
            "steps": plan_lines(info, self.config.host.name, destination, self.context.rerouter is not None),
            "notes": notes,
            "unprotected": wiring.unprotected(info),
        }

    async def _add_router(self, request: dict[str, Any]) -> dict[str, Any]:
        keep = request.get("keep_s")
        raw, bypass = request.get("addresses"), request.get("bypass")
        addresses = (
            [one for one in raw if isinstance(one, list) and len(one) == 2] if isinstance(raw, list) else []
        )
        return await self.context.routers.add(
            _text(request, "vm"),
            _text(request, "management"),
            None if keep is None else router.keep_s(str(keep)),
            tuple((str(one), str(address)) for one, address in addresses),
            router.bypasses(map(str, bypass if isinstance(bypass, list) else [])),
        )

    async def _migrate(self, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        options = Options.from_request(request)
        if self._stop.is_set():
            raise UnavailableError(
                f"the daemon on {self.config.host.name} is being stopped", "try again when it runs"
            )
        migration = await self.desk.migrate(_text(request, "vm"), _text(request, "destination"), options)
        await self._follow(migration, emit)
        verdict = dict(migration.record.verdict or {})
        cause = migration.error.message if migration.error is not None else "cancelled"
        if not migration.whereabouts_known:
            raise UnavailableError(
                f"where VM {migration.record.name!r} runs now is not known: {cause}",
                "look with `virsh list` on both hosts",
            )
        if migration.ended_here:
            raise VmnetError(
                f"VM {migration.record.name!r} ended on {self.config.host.name} while it was being moved",
                "it was shut off or destroyed; start it where it is to run",
                ExitCode.ROLLED_BACK,
            )
        if migration.state is not State.DONE:
            hint = migration.error.hint if migration.error is not None else ""
            raise VmnetError(
                f"VM {migration.record.name!r} stays on {self.config.host.name}: {cause}",
                hint,
                ExitCode.ABORTED if migration.abort_requested else ExitCode.ROLLED_BACK,
            )
        return {"id": migration.record.id, "verdict": verdict}

    async def _follow(self, migration: SourceMigration, emit: Emit) -> None:
        """Until the verdict on a VM that has moved (the tunnel goes some 30 ms later), or until all is put back."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        watchers = self._watchers.setdefault(migration.record.id, set())
        watchers.add(queue)
        for event in self._past.get(migration.record.id, ()):
            queue.put_nowait(event)
        ended = asyncio.ensure_future(migration.finished())
        ended.add_done_callback(lambda _task: queue.put_nowait({}))
        try:
            while event := await queue.get():
                await emit({"id": migration.record.id, **event})
                if event.get("event") == "verdict" and migration.state is State.DONE:
                    break
        finally:
            watchers.discard(queue)
            if not watchers:
                self._watchers.pop(migration.record.id, None)


def _text(request: dict[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isprintable():
        raise NotFoundError(f"the request names no usable '{name}'", code=ExitCode.USAGE)
    return value
