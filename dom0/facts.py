"""What is so now: how busy the hosts are, and what a VM takes. Measured over a second, in which nothing is held up."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psutil

from dom0.context import Context
from dom0.desk import Desk
from dom0.host_facts import HostFacts, busy_percent
from vmnet.errors import NotFoundError, RefusedError, VmnetError
from vmnet.machine import State

WINDOW_S = 1.0
_PEER_S = WINDOW_S + 4.0


class Facts:
    def __init__(self, context: Context, desk: Desk) -> None:
        self._context, self._desk = context, desk
        self._running: asyncio.Task[HostFacts] | None = None

    async def own(self) -> HostFacts:
        """Of this host. Whoever asks while it is measured gets that measurement: asking often costs nothing."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(_measure())
        return await asyncio.shield(self._running)

    async def of_vm(self, name: str) -> dict[str, Any]:
        """Of a VM, this host and its peers. ``t`` and ``moved``: seconds since the epoch by this host's clock.

        Of a VM that is bound to another host, only which. NotFoundError if nobody knows it, RefusedError while it migrates.
        """
        context = self._context
        try:
            uuid = (await context.domains.find(name)).uuid
        except NotFoundError:
            return await self._elsewhere(name)
        if self._desk.of_vm(uuid) is not None:
            raise RefusedError(f"VM {name!r} is being migrated already", "see `vmnet status`")
        vm, own, *others = await asyncio.gather(
            self._vm(name, uuid), self.own(), *(self._peer(peer) for peer in context.peers)
        )
        told = dict(zip(context.peers, others, strict=True))
        hosts = {context.host: own, **{peer: one for peer, one in told.items() if isinstance(one, HostFacts)}}
        return {
            "t": time.time(),
            "host": context.host,
            "vm": vm,
            "hosts": {host: one.to_json() for host, one in hosts.items()},
            "missing": {peer: one for peer, one in told.items() if isinstance(one, str)},
        }

    async def _elsewhere(self, name: str) -> dict[str, Any]:
        """Where the bindings say a VM is that does not run here."""
        for one in await self._context.store.bindings():
            if name in (one.name, one.vm) and one.active and one.host != self._context.host:
                return {
                    "t": time.time(),
                    "host": self._context.host,
                    "vm": {"name": one.name, "uuid": one.vm, "host": one.host},
                }
        raise NotFoundError(f"VM {name!r} does not run on {self._context.host}, nor is known to have left it")

    async def _vm(self, name: str, uuid: str) -> dict[str, Any]:
        usage = self._context.domains.usage
        first, began = await usage(uuid), time.monotonic()
        await asyncio.sleep(WINDOW_S)
        last, took_s = await usage(uuid), time.monotonic() - began
        records = await self._context.store.migrations(open_only=False)
        moved = [
            one.finished
            for one in records
            if one.vm == uuid and one.state == State.DONE.value and one.finished
        ]
        return {
            "name": name,
            "uuid": uuid,
            "host": self._context.host,
            "memory_bytes": last.memory_bytes,
            "cpus_busy": max(0, last.cpu_ns - first.cpu_ns) / 1e9 / took_s,
            "moved": max(moved, default=None),
        }

    async def _peer(self, peer: str) -> HostFacts | str:
        """What it says of itself; why not, if it does not, or nothing that can be."""
        try:
            return HostFacts.from_json(await self._context.peers[peer].request("facts", {}, _PEER_S))
        except VmnetError as error:
            return error.message


async def _measure() -> HostFacts:
    before = psutil.cpu_times()._asdict()
    await asyncio.sleep(WINDOW_S)
    memory = psutil.virtual_memory()
    return HostFacts(
        busy_percent(before, psutil.cpu_times()._asdict()),
        psutil.cpu_count() or 1,
        min(memory.available, memory.total),
        memory.total,
    )
