"""Two hosts in memory: the daemons' own desks and migrations; hypervisor, ports, store and wire are stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from controller_bridge.rerouters.base import Move
from dom0.context import Context
from dom0.dataplane.destination_port import Opened
from dom0.dataplane.gate import GateCounts
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.priority import Hurry
from dom0.dataplane.source_port import Released, Reopened
from dom0.desk import Desk
from dom0.hook_call import HookCall
from dom0.router.registry import Routers
from dom0.tunnel_filter import TunnelFilter
from vmnet.config import parse
from vmnet.errors import (
    NotFoundError,
    PeerError,
    RefusedError,
    StaleGenerationError,
    UnavailableError,
    VmnetError,
)
from vmnet.hypervisor.domains import CutOffError, Defined, DomainState
from vmnet.hypervisor.events import DomainEvent, Happening, JobProgress
from vmnet.store import Binding, JournalEntry, MigrationRecord

VM = "11111111-2222-3333-4444-555555555555"
MAC = "52:54:00:00:00:01"
XML = f"""<domain type='kvm'><name>blue</name><uuid>{VM}</uuid><memory>524288</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os><devices><interface type='bridge'><mac address='{MAC}'/>
<source bridge='br0'/><target dev='vnet0'/></interface></devices></domain>"""
NONE = GateCounts(0, 0, 0, 0, 0, 0, 0, 0)


class MemoryStore:
    """The journal, records and bindings of one host."""

    def __init__(self) -> None:
        self.records: dict[str, MigrationRecord] = {}
        self.journals: dict[str, list[JournalEntry]] = {}
        self.known: dict[str, Binding] = {}

    async def migration_put(self, record: MigrationRecord) -> None:
        self.records[record.id] = record

    async def journal_plan(self, identity: str, entries: list[JournalEntry]) -> None:
        self.journals[identity] = [*self.journals.get(identity, []), *entries]

    async def journal(self, identity: str) -> list[JournalEntry]:
        return self.journals.get(identity, [])

    async def journal_clear(self, identity: str) -> None:
        self.journals.pop(identity, None)

    async def space_check(self) -> None: ...

    async def binding_get(self, vm: str) -> Binding | None:
        return self.known.get(vm)

    async def bindings(self) -> list[Binding]:
        return list(self.known.values())

    async def binding_learn(self, binding: Binding) -> Binding:
        known = self.known.get(binding.vm)
        if known is None or binding.generation > known.generation:
            self.known[binding.vm] = binding
        return self.known[binding.vm]

    async def binding_claim(self, binding: Binding, expected: int | None) -> Binding:
        known = self.known.get(binding.vm)
        if (known.generation if known else None) != expected:
            raise StaleGenerationError("somebody else was first")
        self.known[binding.vm] = replace(binding, generation=(expected or 0) + 1)
        return self.known[binding.vm]


class StandIn:
    """``port``: whose gate it is."""

    name = "stand-in"

    def __init__(self, port: Port, settings: PortSettings) -> None:
        assert port.settings is settings and not port.stood_in
        self._port = port
        port.stood_in = True

    def stand_before(self) -> None:
        assert self._port.mode == "pass"

    def close(self) -> None:
        self._port.stood_in = False


class Port:
    """Stands for either port: says what mode its gate is in, and whether anything of it is left."""

    def __init__(self, host: Host, settings: PortSettings, stretched: bool = False) -> None:
        self.settings, self.stretched, self.tunnel = settings, stretched, f"vmt{settings.vni:06x}"
        self.tap, self.retired, self.connected = "", False, False
        self.mode, self.closed, self.copy_complete = "pass", False, True
        self.gate, self.stood_in = self, False
        self.addresses = SimpleNamespace(found={"10.0.0.1": None})
        self.marker = Marker()
        self._world = host.world
        host.ports.append(self)

    bridge_port = "no-such-port"
    routed = False
    outgoing_lost = tunnel_sent = tunnel_received = 0
    on_ovs = unsteered = False
    was_ready = True
    bridged = False
    senders = SimpleNamespace(headers=[])

    def followed_count(self) -> int:
        return 0

    def verify(self) -> None:
        assert not self.closed

    def mark(self, frame: bytes) -> None:
        assert self.mode == "divert", "the end marker overtakes what is held"
        assert self._world.fabric is not None and self._world.fabric.place == "b"
        self._world.hosts["b"].ports[-1].marker.come(frame)

    def say(self, frame: bytes) -> None:
        """Nobody hears it."""

    answered = 0

    def answer_neighbours(self) -> None:
        assert self.mode == "divert"
        self.answered += 1

    keeps = False

    def follow(self) -> None:
        assert self.mode == "hold"
        self.mode = "divert"

    def take_back(self) -> None:
        self.mode = "hold"

    def given_back(self) -> int:
        return 3

    def go_back(self) -> int:
        assert self._world.fabric is not None and self._world.fabric.place == "a"
        return 3

    def turn(self, sampling: bool) -> None:
        assert not self.closed and not self.retired

    def attach(self, tap: str) -> None:
        self.tap = tap

    def make_room(self) -> None:
        assert self.tap or self.mode == "pass"

    def connect(self, local: str, remote: str) -> None:
        assert local and remote and not self.connected
        self.connected = True

    def retire(self) -> None:
        self.retired = True

    def unread(self) -> int:
        return 0

    def hold(self) -> None:
        self.mode = "hold"

    expect = hold

    def release(self, stop_ns: int | None, exact: bool = True) -> Released:
        assert self.mode == "hold"
        self.mode = "divert"
        self._world.released_while.append(self._world.at.get("a"))
        return Released(0, 0, 0, 0)

    def look_again(self, stop_ns: int) -> Released | None:
        return None

    def reopen(self) -> Reopened:
        self.mode = "pass"
        return Reopened(0, 0)

    def open(self) -> Opened:
        self.mode = "pass"
        return Opened(0, 0, 0)

    def announce(self, frames: list[bytes]) -> None:
        asyncio.get_running_loop().call_later(0.002, self.marker.come, b"announcement")

    def counts(self) -> GateCounts:
        return NONE

    def resumed(self) -> None: ...
    def stop_groups(self) -> None: ...

    def close(self, keep: bool = False) -> None:
        self.closed = True
        self.marker.close()


class Marker:
    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._open = True
        self._heard: list[bytes] = []

    def come(self, frame: bytes) -> None:
        if self._open:
            self._heard.append(frame)
            os.eventfd_write(self.fd, 1)

    def drain(self) -> list[bytes]:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        heard, self._heard = self._heard, []
        return heard

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self.fd)


class Fabric:
    """Where packets for the VM go, by what it was told; told too much trouble, it fails. ``sure``: the last thing asked was done."""

    def __init__(self, world: World) -> None:
        self.place, self.sure, self.prepared = "a", True, False
        self._world = world

    async def _work(self) -> None:
        self.sure = False
        await asyncio.sleep(self._world.dice.choice((0.0005, 0.004, 0.03)))
        if self._world.dice.random() < self._world.trouble:
            raise UnavailableError("the switch has gone")

    async def prepare(self, move: Move) -> None:
        assert move.addresses == ("10.0.0.1",)
        await self._work()
        self.prepared = self.sure = True

    async def cut_over(self, move: Move) -> None:
        held = self._world.hosts["b"].ports
        assert not held or held[-1].mode != "pass" or self._world.at.get("b") == "running"
        await self._work()
        self.place, self.sure = "b", True

    async def finish(self, move: Move) -> None:
        assert self.place == "b"
        await self._work()
        self.sure = True

    async def roll_back(self, move: Move) -> None:
        await self._work()
        self.place, self.sure = "a", True

    async def close(self) -> None: ...


class MemoryMarks:
    """Names of VMs whose hooks libvirt does not wait for."""

    def __init__(self) -> None:
        self.expected: set[str] = set()
        self.prepared: set[str] = set()
        self.elsewhere = self

    def replace(self, names: Iterable[str]) -> None:
        """Of VMs that are bound to other hosts."""
        self.away = set(names)

    def discard(self, name: str) -> None:
        self.expected.discard(name)
        self.prepared.discard(name)


class Host:
    def __init__(self, world: World, name: str, other: str) -> None:
        self.name, self.world, self.alive = name, world, True
        self.ports: list[Port] = []
        config = parse(
            f"[host]\nname='{name}'\n[listen]\ntunnel_address='192.0.2.{ord(name)}'\n"
            "tunnel_filter=false\n[tls]\nplain=true\n"
            f"[peers.{other}]\naddress='192.0.2.{ord(other)}'\nlibvirt_uri='qemu+tcp://{other}/system'\n",
            "sim",
        )
        self.store = MemoryStore()
        domains: Any = Domains(world, name)
        store: Any = self.store
        peers: Any = {other: Wire(world, name, other)}
        self.priorities: list[bool] = []
        """What the switchovers made of this host's priority."""
        hurry = Hurry(lambda process, on: self.priorities.append(on))
        self.context = Context(
            config,
            store,
            None,
            domains,
            MemoryMarks(),
            Routers(config, domains, store),
            TunnelFilter(config),
            peers,
            hurry=hurry,
        )  # type: ignore[arg-type]
        self.context.rerouter = world.fabric
        self.desk = Desk(self.context)

    def hear(self, happening: Happening, now_ns: int, detail: str = "", number: int = 0) -> None:
        if self.alive and not (self.name == "a" and self.world.away.is_set()):
            self.desk.hypervisor_event(DomainEvent(happening, VM, "blue", now_ns, detail, number))

    def die(self) -> None:
        """The daemon is killed: it hears nothing and does nothing any more."""
        self.alive = False
        for one in self.desk.migrations.values():
            for task in (*([one._runner] if "_runner" in vars(one) else []), *one._tasks):
                task.cancel()


class Wire:
    """Requests to the other daemon: late, lost, answered too late, or doubled."""

    def __init__(self, world: World, me: str, other: str) -> None:
        self._world, self._me, self._other = world, me, other

    async def clock_offset_ns(self, count: int) -> int:
        return 0

    async def request(self, op: str, payload: dict[str, Any], limit_s: float) -> dict[str, Any]:
        world = self._world
        host = world.hosts[self._other]
        message = json.loads(json.dumps(payload))
        fate = world.fate(op)
        await asyncio.sleep(world.dice.choice((0.0003, 0.001, 0.02)))
        if fate == "lost" or not host.alive or not world.hosts[self._me].alive:
            await asyncio.sleep(limit_s)
            raise PeerError(f"no answer to {op}")
        if fate == "doubled":
            world.spawn(self._once_more(host, op, message))
        answer = await asyncio.wait_for(host.desk.peer(self._me, op, message), limit_s)
        if fate == "answer lost":
            raise PeerError(f"the connection was lost before the answer to {op}")
        return dict(json.loads(json.dumps(answer)))

    async def _once_more(self, host: Host, op: str, message: dict[str, Any]) -> None:
        await asyncio.sleep(self._world.dice.choice((0.0, 0.01, 0.5)))
        with contextlib.suppress(VmnetError):
            await host.desk.peer(self._me, op, message)


class Domains:
    """One host's hypervisor, as the daemon asks it."""

    def __init__(self, world: World, host: str) -> None:
        self._world, self._host = world, host

    def _reach(self) -> None:
        if self._host == "a" and self._world.away.is_set():
            raise UnavailableError("libvirt is away")

    async def find(self, vm: str) -> DomainState:
        self._reach()
        state = self._world.at.get(self._host)
        if state is None:
            raise NotFoundError("no such VM here")
        return DomainState("blue", VM, state == "running", XML)

    def get_ready(self) -> None: ...

    async def defined(self, vm: str) -> Defined:
        self._reach()
        return Defined(persistent=True, autostart=True)

    async def start_with_host(self, vm: str) -> None:
        self._reach()

    async def migrate(self, *_: Any) -> None:
        """libvirt's own work: it goes on when the caller is gone, or cut off."""
        work = asyncio.ensure_future(self._world.migrate())
        work.add_done_callback(lambda task: task.exception())  # nobody asks for it who is cut off
        cut_off = asyncio.ensure_future(self._world.away.wait())
        try:
            await asyncio.wait((work, cut_off), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not cut_off.done():
                cut_off.cancel()
        if self._world.away.is_set():
            raise CutOffError("libvirt is away")
        await asyncio.shield(work)

    async def suspend(self, vm: str) -> None:
        if self._world.away_at_suspend:
            self._world.go_away()
        self._reach()
        if self._world.at.get(self._host) != "running":
            raise RefusedError("it is not running")
        await asyncio.sleep(0.002)
        self._world.stop_guest(by_people=True)

    async def resume(self, vm: str) -> None:
        self._reach()
        if self._world.at.get(self._host) != "paused" or self._world.job_running:
            raise RefusedError("it is not paused, or a migration has it")
        self._world.run_at(self._host)

    async def abort_job(self, vm: str) -> None:
        self._reach()
        if not self._world.job_running:
            raise RefusedError("there is no job")
        self._world.abort = True

    async def set_max_downtime(self, vm: str, milliseconds: int) -> None: ...

    async def progress(self, vm: str) -> JobProgress:
        self._reach()
        return JobProgress(
            self._world.job_running,
            memory_total_bytes=1 << 29,
            memory_processed_bytes=1 << 28,
            memory_remaining_bytes=1 << 20,
            memory_bps=1 << 30,
            dirty_bps=1 << 20,
        )


class World:
    """The VM, libvirt's migration of it from ``a`` to ``b``, and what goes wrong: all from one seed."""

    def __init__(self, seed: int, trouble: float, fail_at: str = "", told: bool = False) -> None:
        self.dice, self.trouble, self.fail_at = random.Random(seed), trouble, fail_at
        self.at: dict[str, str] = {"a": "running"}
        self.job_running = self.abort = self.by_people = False
        self.die_at: tuple[str, str] | None = None
        self.away_at_suspend, self.away_at, self.away_s = False, "", 0.0
        """At this phase ``a``'s libvirt cuts its clients off; so long after it has finished the migration it answers again."""
        self.away = asyncio.Event()
        self.lost: tuple[str, ...] = ()
        self.start_s: tuple[float, ...] = (0.005, 0.02, 1.0)
        self.passes, self.copy_s = 5, 0.03
        self.prepare_s = 0.0
        """How long ``b``'s hypervisor takes from its first hook to its second."""
        self.unanswered: list[str] = []
        """Requests that arrive, and whose first answers do not; one entry an answer."""
        self.released_while: list[str | None] = []
        """What the VM did at ``a`` when its frames were sent after it; None: it was no longer there."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.fabric = Fabric(self) if told else None
        self.hosts = {"a": Host(self, "a", "b"), "b": Host(self, "b", "a")}

    def fate(self, op: str) -> str:
        if op in self.lost:
            return "lost"
        if op in self.unanswered:
            self.unanswered.remove(op)
            return "answer lost"
        if self.dice.random() >= self.trouble:
            return "well"
        return self.dice.choice(("lost", "answer lost", "doubled"))

    def spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def go_away(self) -> None:
        """``a``'s libvirt, with its clients cut off."""
        self.away.set()
        for one in self.hosts["a"].desk.migrations.values():
            one.lose_hypervisor()

    def now_ns(self) -> int:
        return int((1_700_000_000 + asyncio.get_running_loop().time()) * 1e9)

    def run_at(self, host: str) -> None:
        self.at[host] = "running"
        assert list(self.at.values()).count("running") == 1, f"the VM runs twice: {self.at}"
        self.hosts[host].hear(Happening.GUEST_RESUME, self.now_ns())

    def stop_guest(self, by_people: bool) -> None:
        if self.at.get("a") == "running":
            self.at["a"], self.by_people = "paused", by_people
            self.hosts["a"].hear(Happening.GUEST_STOP, self.now_ns())
            self.hosts["a"].hear(Happening.SUSPENDED, self.now_ns())

    async def migrate(self) -> None:
        self.job_running = True
        try:
            await self._phases()
        except UnavailableError:
            self._failed()
            raise RefusedError("operation failed: migration out job") from None
        finally:
            self.job_running = False
            if self.away.is_set():
                await asyncio.sleep(self.away_s)
                self.away.clear()

    async def _phases(self) -> None:
        b = self.hosts["b"]
        await self._phase("begin")
        marks: Any = b.context.marks
        if "blue" not in marks.expected:
            await self._hook(b, "migrate")
        await asyncio.sleep(self.prepare_s)
        await self._phase("prepare")
        self.at["b"] = "incoming"
        self._hook_later(b, "start", self.start_s)
        await asyncio.sleep(0.1)
        if "blue" in marks.prepared:
            self._hook_later(b, "started", (0.005, 0.02, 0.2))
        else:
            await self._hook(b, "started")
        for number in range(1, self.passes + 1):
            await self._phase(f"pass {number}")
            self.hosts["a"].hear(Happening.PASS, self.now_ns(), number=number)
            for _ in range(20):
                await asyncio.sleep(0.005)
                if self.at["a"] != "running":
                    break
            if self.at["a"] != "running":
                break
        self.stop_guest(by_people=False)
        await asyncio.sleep(self.copy_s)
        await self._phase("copy")
        del self.at["a"]
        self.run_at("b")
        await asyncio.sleep(self.dice.choice((0.0005, 0.01)))
        self.hosts["a"].hear(Happening.STOPPED, self.now_ns(), "migrated")

    async def _phase(self, name: str) -> None:
        await asyncio.sleep(0.005)
        if name == self.away_at:
            self.go_away()
        if self.die_at is not None and self.die_at[1] == name:
            self.hosts[self.die_at[0]].die()
        if self.abort or self.fail_at == name:
            raise UnavailableError("failed")

    async def _hook(self, host: Host, op: str) -> None:
        if host.alive:
            await host.desk.hook(HookCall("qemu", "blue", op, "begin", "", XML.encode()))

    def _hook_later(self, host: Host, op: str, after_s: tuple[float, ...]) -> None:
        """A call that libvirt does not wait for, and how late it may be."""

        async def call() -> None:
            await asyncio.sleep(self.dice.choice(after_s))
            await self._hook(host, op)

        self.spawn(call())

    def _failed(self) -> None:
        if self.at.pop("b", None) is not None:
            self.hosts["b"].hear(Happening.STOPPED, self.now_ns(), "failed")
        if self.at["a"] == "paused" and not self.by_people:
            self.run_at("a")
