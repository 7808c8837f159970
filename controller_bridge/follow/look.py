"""One look at a VM: the daemon's facts, the traffic on its taps, and the switches' tables, into what is decided from."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, replace
from typing import Any, Final

from controller_bridge.connected import Connected
from controller_bridge.fabric import Fabric
from controller_bridge.follow import gather as gathering
from controller_bridge.follow.gather import Gathered, Map, Traffic
from controller_bridge.follow.places import Seen, locate
from vmnet.control import ControlClient
from vmnet.errors import UnavailableError

_SILENCE_S: Final = 30.0


@dataclass(frozen=True)
class Away:
    """The VM is at another host."""

    host: str


@dataclass(frozen=True)
class Scene:
    """Where to look. ``fabric``: None if there is none. ``needed``: whether its switches have to answer. ``window_s``: so long."""

    socket: str
    vm: str
    window_s: float
    fabric: Fabric | None = None
    tls: ssl.SSLContext | None = None
    needed: bool = True


async def look(scene: Scene) -> Gathered | Away:
    """What the daemon or a switch says instead is raised: NotFoundError if nobody knows the VM, RefusedError while it migrates …"""
    client = ControlClient(scene.socket, scene.window_s + _SILENCE_S)

    def ask(op: str, **fields: Any) -> dict[str, Any]:
        return client.request(op, vm=scene.vm, **fields)

    asked = [asyncio.to_thread(ask, "facts")]
    if scene.fabric is not None:
        asked.append(asyncio.to_thread(ask, "traffic", seconds=scene.window_s))
    facts, *measured = await asyncio.gather(*asked, return_exceptions=True)
    if isinstance(facts, BaseException):
        raise facts
    other = gathering.elsewhere(facts)
    if other is not None:
        return Away(other)
    if scene.fabric is None:
        return gathering.gather(facts, Traffic(), None)
    if isinstance(measured[0], BaseException):
        raise measured[0]
    traffic = gathering.traffic(measured[0])
    try:
        known = await ask_switches(scene.fabric, scene.tls, str(facts["host"]), traffic.seen)
    except UnavailableError as error:
        if scene.needed:
            raise
        found = gathering.gather(facts, traffic, None)
        return replace(found, notes=(*found.notes, f"it is not known where clients are: {error.message}"))
    return gathering.gather(facts, traffic, known)


async def ask_switches(fabric: Fabric, tls: ssl.SSLContext | None, here: str, seen: tuple[Seen, ...]) -> Map:
    """Where hosts and clients are, for a VM on host ``here``. UnavailableError if no switch answers."""
    connected, away = await Connected.to_any(fabric, tls)
    try:
        tables = {name: [one.flow for one in some] for name, some in (await connected.tables()).items()}
        hosts = {name: connected.place(end) for name, end in connected.fabric.hosts.items()}
        clients, unknown = locate(seen, tables, connected.topology, hosts.get(here))
        names = {address: connected.name(place) for address, place in clients.items()}
        notes = tuple(f"left out: {error.message}" for error in away.values())
        return Map(connected.topology, hosts, clients, names, unknown, notes)
    finally:
        connected.close()
