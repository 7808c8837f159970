"""Open vSwitch (or any OpenFlow 1.3 switch) told directly: flows that go by a VM's addresses lead to its new host. No controller.

Settings: those of a fabric's file (:mod:`controller_bridge.fabric`), or ``file``, where it is. ``hosts`` must have both hosts.

Everything follows from what the switches' tables say now, so a step may be repeated by a process that knows nothing of the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Set
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from controller_bridge import fabric, trees
from controller_bridge.connected import Connected
from controller_bridge.fabric import Fabric
from controller_bridge.fence import fence
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Command, Flow
from controller_bridge.openflow.match import Field
from controller_bridge.paths import Changes
from controller_bridge.reroute import Reroute
from controller_bridge.rerouters.base import Move
from controller_bridge.topology import Place
from vmnet.errors import ConfigError, RefusedError, UnavailableError

_FOLLOWS_S = 0.25
"""A switch's datapath follows its table in that time: 175 ms was the longest that was seen."""
_DESTINATIONS = (Field.ETH_DST, Field.IPV4_DST, Field.IPV6_DST)


def open_openvswitch(settings: Mapping[str, Any]) -> OpenVSwitchRerouter:
    """ConfigError if the settings are wrong. Nothing is connected to yet."""
    if "file" in settings:
        if set(settings) != {"file"} or not isinstance(settings["file"], str):
            raise ConfigError("'file' is to be the fabric's file, and nothing else beside it")
        return OpenVSwitchRerouter(fabric.read(Path(settings["file"])))
    return OpenVSwitchRerouter(fabric.parse(settings))


class OpenVSwitchRerouter:
    """``prepare`` adds guards (:mod:`controller_bridge.trees`), which nothing meets yet; a tree's entries are all in use."""

    def __init__(self, known: Fabric) -> None:
        self._fabric = known
        self._connected: Connected | None = None
        self._plans: dict[str, Reroute] = {}
        self._cut_at_s: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self, move: Move) -> None:
        """RefusedError if the switches have no entries for the VM, or such that go by more than its addresses."""
        await self._settled()
        reroute = await self._plan(move, move.destination)
        await reroute.prepare()
        self._plans[move.id] = reroute

    async def cut_over(self, move: Move) -> None:
        """From the new host's switch outward, a bundle on each. What is done is confirmed before the next begins."""
        reroute = self._plans.get(move.id)
        if reroute is None:
            reroute = await self._plan(move, move.destination)
            await reroute.install()
        self._plans[move.id] = reroute
        await reroute.cut_over()
        self._cut_at_s[move.id] = asyncio.get_running_loop().time()

    async def fence(self, move: Move, token: bytes) -> int:
        """From every switch whose entry was changed, if it goes by the MAC address alone: a fence has no others."""
        reroute = self._plans.get(move.id)
        if reroute is None or self._connected is None:
            return 0
        switches = reroute.switches
        fences = [(switches[name], one) for name, one in _left(reroute.plan.undo_cuts, _macs(move))]
        for switch, flow in fences:
            mac = flow.match.get(Field.ETH_DST) or b""
            switch.send_packet(map(action.output, action.outputs(flow.instructions)), fence(mac, token))
        await asyncio.gather(*(switch.barrier() for switch in {switch for switch, _flow in fences}))
        return len(fences)

    async def finish(self, move: Move) -> None:
        """The tables are read back, and the guards go. RefusedError if they do not lead to the new host."""
        self._plans.pop(move.id, None)
        left = await self._plan(move, move.destination)
        if left.plan.cuts:
            raise RefusedError(
                f"not all flows of {', '.join(move.macs)} lead to {move.destination}",
                "`vmnet flows show` says which",
            )
        await self._unguard(move, left)

    async def roll_back(self, move: Move) -> None:
        """They lead to the old host again, by shortest paths. Guards go when all switches go by that."""
        self._plans.pop(move.id, None)
        back = await self._plan(move, move.source)
        if not back.plan.cuts:
            await self._unguard(move, back)
            return
        await back.install()
        await back.cut_over()
        self._cut_at_s[move.id] = asyncio.get_running_loop().time()
        await back.confirm_cut()
        task = asyncio.create_task(self._unguard(move, await self._plan(move, move.source)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _unguard(self, move: Move, done: Reroute) -> None:
        cut_at_s = self._cut_at_s.pop(move.id, 0.0)
        if done.plan.prepare or done.plan.finish:
            await asyncio.sleep(max(0.0, cut_at_s + _FOLLOWS_S - asyncio.get_running_loop().time()))
        await done.install()
        await done.finish(drain=False)

    async def close(self) -> None:
        await self._settled()
        self._disconnect()

    async def _settled(self) -> None:
        """Nothing of an earlier step is under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _disconnect(self) -> None:
        if self._connected is not None:
            self._connected.close()
            self._connected = None

    async def _plan(self, move: Move, host: str) -> Reroute:
        connected = await self._connection()
        place = self._place(connected, host)
        wanted = _destinations(move)
        tables = await connected.tables()
        entries = {
            switch: [one.flow for one in found if _leads_to(one.flow, wanted)]
            for switch, found in tables.items()
        }
        if not any(entries.values()):
            raise RefusedError(
                f"no switch has flows to {', '.join(move.macs)}",
                "is this fabric steered by OpenFlow entries?",
            )
        return Reroute(connected.switches, trees.plan(entries, connected.topology, place))

    def _place(self, connected: Connected, host: str) -> Place:
        if host not in self._fabric.hosts:
            raise RefusedError(
                f"the fabric's file does not say where host {host!r} is",
                f'write {host} = "SWITCH:PORT" under [hosts]',
            )
        return connected.place(self._fabric.hosts[host])

    async def _connection(self) -> Connected:
        """Made anew if any of it has gone."""
        if self._connected is not None:
            try:
                for one in self._connected.switches.values():
                    await one.echo()
            except UnavailableError:
                self._disconnect()
        if self._connected is None:
            self._connected = await Connected.to(self._fabric)
        return self._connected


def _macs(move: Move) -> set[bytes]:
    return {bytes.fromhex(mac.replace(":", "")) for mac in move.macs}


def _destinations(move: Move) -> set[bytes]:
    return _macs(move) | {ip_address(one).packed for one in move.addresses}


def _left(undo: Iterable[Changes], macs: Set[bytes]) -> Iterator[tuple[str, Flow]]:
    """By switch: entries that were, for no packets but all to one of ``macs``."""
    for level in undo:
        for switch, changes in level.items():
            for command, one, _mask in changes:
                fields = one.match.fields()
                if command is not Command.DELETE_STRICT and fields.keys() == {Field.ETH_DST}:
                    value, mask = fields[Field.ETH_DST]
                    if mask is None and value in macs:
                        yield switch, one


def _leads_to(one: Flow, wanted: set[bytes]) -> bool:
    """By its exact destination; one with a mask is of a network."""
    fields = one.match.fields()
    return any(
        fields[field][0] in wanted and fields[field][1] is None for field in _DESTINATIONS if field in fields
    )
