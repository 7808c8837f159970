"""The routers of this host: which VM's data plane is here, from when it is made until it goes."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from dataclasses import asdict, replace
from typing import Any

from dom0 import stretch, wiring
from dom0.dataplane import netdev, netns
from dom0.dataplane.gate_program import Mode
from dom0.router import kernel_view, names
from dom0.router.namespace import delete_port
from dom0.router.router import Router
from vmnet import domain_xml, router
from vmnet.config import Config
from vmnet.domain_xml import DomainInfo
from vmnet.errors import NotFoundError, RefusedError, VmnetError
from vmnet.hypervisor.domains import Domains
from vmnet.router import RouterSpec
from vmnet.store import Store

log = logging.getLogger(__name__)
_TRY_AGAIN_S, _TRIES = 2.0, 30
_GONE_ON_PURPOSE = ("shutdown", "migrated", "saved")


def taps(info: DomainInfo) -> dict[str, str]:
    """By MAC: the VM's taps that are there."""
    return {one.mac: tap for one, tap in wiring.with_taps(info)}


def _interface(info: DomainInfo, said: str) -> str:
    """MAC of the one interface that ``said`` means."""
    found = [one.mac for one in info.interfaces if said.lower() in (one.mac, one.bridge, one.target_dev)]
    if len(found) != 1:
        many = "several interfaces" if found else "no interface"
        raise RefusedError(
            f"VM {info.name!r} has {many} with MAC, bridge or tap {said!r}", "see `virsh domiflist`"
        )
    return found[0]


def _has_port(vm: str) -> bool:
    """Whether the data plane of the VM with this uuid is here."""
    return any(device.startswith(names.ports(vm)) for device in netdev.all_names())


class Routers:
    def __init__(self, config: Config, domains: Domains, store: Store) -> None:
        self._config, self._domains, self._store = config, domains, store
        self._routers: dict[str, Router] = {}
        self._expiry: dict[str, asyncio.TimerHandle] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """One at a time makes or removes a VM's data plane: its names are the same each time."""
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, vm: str) -> Router | None:
        """``vm``: a uuid."""
        return self._routers.get(vm)

    async def start(self) -> None:
        """Take over what an earlier daemon left working, for VMs that run; the rest of what is left goes."""
        present: dict[str, str] = {}
        for _name, vm in await self._domains.names():
            try:
                state = await self._domains.find(vm)
                info = domain_xml.parse(state.xml.encode())
                if info.router is not None:
                    present[names.namespace(info.name, info.uuid)] = names.ports(info.uuid)
                if state.running:
                    await self.vm_runs(info)
            except (VmnetError, OSError) as error:
                log.warning("VM %s: %s: its data plane goes on as it is", vm, error)
                self.spawn(self._try_again(vm))
        await asyncio.to_thread(self._remove_orphans, present)

    async def _try_again(self, vm: str) -> None:
        """Take a running VM's data plane over after all."""
        for _ in range(_TRIES):
            await asyncio.sleep(_TRY_AGAIN_S)
            try:
                state = await self._domains.find(vm)
                if state.running:
                    await self.vm_runs(domain_xml.parse(state.xml.encode()))
                return
            except (VmnetError, OSError) as error:
                log.warning("VM %s: %s", vm, error)

    def _remove_orphans(self, present: Mapping[str, str]) -> None:
        """``present``: of VMs that are here, if only paused, their namespaces and how their ports' names begin."""
        for device in netdev.all_names():
            if names.is_port(device) and not device.startswith(tuple(present.values())):
                delete_port(device)
        for name in netns.names(names.NAMESPACE_PREFIX):
            if name not in present:
                log.info("removing %s: no VM here has this data plane", name)
                netns.delete(name)

    async def vm_runs(self, info: DomainInfo) -> None:
        """The VM runs here: it gets its data plane if its metadata say that it is a router. Nothing happens for others.

        A data plane that is there already (its VM had died, or another daemon made it) goes on with the routes it has.
        """
        if info.router is None:
            return
        async with self._locks[info.uuid]:
            known = self._routers.get(info.uuid)
            self._keep_on(info.uuid)
            if known is not None:
                known.configure(info.router)
                await known.connect(taps(info))
                return
            await self._make_way(info)
            made = await self._make(info, info.router)
            try:
                await made.connect(taps(info), talk=True)
            except BaseException:
                # the VM goes on as it was, behind a data plane that worked before or without one
                del self._routers[info.uuid]
                await (made.stop() if made.found else made.remove(taps(info)))
                raise

    async def _make_way(self, info: DomainInfo) -> None:
        """The data plane that another VM of this name has left, which was deleted meanwhile, goes: the namespace has the VM's name.

        RefusedError if that one's VM is here. The VM's own lock is held: a namespace without ports may be one that is being made.
        """
        namespace = names.namespace(info.name, info.uuid)
        for vm, one in list(self._routers.items()):
            if vm == info.uuid or one.plane.layout.namespace != namespace:
                continue
            if vm not in self._expiry:
                raise RefusedError(f"another VM {info.name!r} is a router here", "rename one of them")
            log.warning(
                "router VM %s is another one than before: the old one's data plane is removed", info.name
            )
            await self.forget(vm)
        if netns.exists(namespace) and not _has_port(info.uuid):
            log.warning("removing %s: it is not that of the VM %s that is here", namespace, info.name)
            await asyncio.to_thread(netns.delete, namespace)

    async def _make(self, info: DomainInfo, spec: RouterSpec) -> Router:
        made = Router(self._config, info, spec)
        namespace = made.plane.layout.namespace
        there = netns.exists(namespace)
        filled = there and kernel_view.has_routes(namespace)
        # A new one is silent as long as the VM is not behind it: the kernel says in it which groups it listens to, and a bridge that
        # hears the VM's address there sends there what is for the VM
        await made.build(Mode.PASS if filled else Mode.SLOW, there, taps(info) if there else {})
        self._routers[info.uuid] = made
        tunnels = await stretch.links(self._store, info.uuid)
        for port in made.plane.ports.values():
            if port.name in tunnels:
                await made.hang_on(port, tunnels[port.name])
        return made

    async def prepare(self, info: DomainInfo) -> Router:
        """A router that is about to come: everything is made, silent, and takes nothing."""
        assert info.router is not None
        async with self._locks[info.uuid]:
            await self._make_way(info)
            self._keep_on(info.uuid)
            earlier = self._routers.pop(info.uuid, None)
            if earlier is not None:
                await earlier.remove()
            one = Router(self._config, info, info.router)
            await one.build(Mode.BLOCK, talk=False)
            self._routers[info.uuid] = one
            return one

    def vm_gone(self, vm: str, detail: str) -> None:
        """The VM has ended. On purpose: its data plane goes. Else it goes on forwarding for a while, as in a graceful restart."""
        one = self._routers.get(vm)
        if one is None:
            return
        keep_s = one.spec.keep_s if one.spec.keep_s is not None else self._config.router.keep_s
        if detail in _GONE_ON_PURPOSE or not keep_s:
            self.spawn(self.forget(vm))
            return
        log.warning(
            "router VM %s is gone (%s): its data plane goes on for %d s", one.info.name, detail, keep_s
        )
        self.spawn(one.disconnect())
        loop = asyncio.get_running_loop()
        self._expiry[vm] = loop.call_later(keep_s, lambda: self.spawn(self._expired(vm)))

    async def _expired(self, vm: str) -> None:
        log.warning("router VM %s has not come back: its data plane is removed", vm)
        await self.forget(vm)

    def _keep_on(self, vm: str) -> None:
        handle = self._expiry.pop(vm, None)
        if handle is not None:
            handle.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def forget(
        self, vm: str, only: Router | None = None, vm_taps: dict[str, str] | None = None
    ) -> None:
        """Its data plane goes (``only``: if it is still this one).

        ``vm_taps`` of a VM that stays get their places in the bridges back.
        """
        async with self._locks[vm]:
            one = self._routers.get(vm)
            if one is None or only not in (None, one):
                return
            self._keep_on(vm)
            del self._routers[vm]
            await one.remove(vm_taps)

    # -- people --------------------------------------------------------------------------------------------------------

    async def add(
        self,
        name: str,
        management: str,
        keep_s: int | None,
        addresses: tuple[tuple[str, str], ...],
        bypass: frozenset[router.Bypass] = frozenset(),
    ) -> dict[str, Any]:
        """Mark a VM as a router and give it its data plane, if it runs.

        ``management``, and the first of each of ``addresses``: an interface's MAC, bridge or tap. RefusedError if that is not one.
        """
        info = domain_xml.parse((await self._domains.describe(name)).encode())
        spec = RouterSpec(
            _interface(info, management),
            keep_s,
            tuple((_interface(info, one), router.address(text)) for one, text in addresses),
            bypass,
        )
        await self._domains.set_metadata(name, spec.to_xml())
        info = replace(info, router=spec)
        try:
            if info.router is not None and taps(info):
                await self.vm_runs(info)
        except (VmnetError, OSError):
            await self._domains.set_metadata(name, None)
            raise
        return {"vm": info.name, "running": info.uuid in self._routers}

    async def remove(self, name: str) -> dict[str, Any]:
        """The VM is none any more; it forwards by itself again. NotFoundError if it is none."""
        info = domain_xml.parse((await self._domains.describe(name)).encode())
        if info.router is None and info.uuid not in self._routers:
            raise NotFoundError(f"VM {info.name!r} is no router", "see `vmnet router list`")
        await self._domains.set_metadata(name, None)
        await self.forget(info.uuid, vm_taps=taps(info))
        return {"vm": info.name}

    async def status(self) -> list[dict[str, Any]]:
        return [asdict(await asyncio.to_thread(one.status)) for one in self._routers.values()]

    async def close(self) -> None:
        """The daemon ends; the kernel goes on forwarding."""
        for handle in self._expiry.values():
            handle.cancel()
        for one in self._routers.values():
            await one.stop()
