"""A fabric that Faucet runs by its own configuration: a reload is the cut-over (docs/rerouters.md).

What is to be where at which stage is in :mod:`.faucet_acls`; that Faucet runs by it, in :mod:`.faucet_control`. All that has been
done for a move is in our file: a daemon that has been restarted reads it there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from controller_bridge.address import Address, parse
from controller_bridge.openflow import action
from controller_bridge.openflow.match import Field
from controller_bridge.rerouters import faucet_acls, faucet_config, faucet_file
from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.faucet_acls import Entry, Hosts, Stage, Turn
from controller_bridge.rerouters.faucet_check import Place, read
from controller_bridge.rerouters.faucet_config import Fabric
from controller_bridge.rerouters.faucet_control import FaucetControl
from controller_bridge.rerouters.faucet_metrics import Running
from controller_bridge.rerouters.settings import Settings
from controller_bridge.switch import Switch
from vmnet.errors import ConfigError, RefusedError, UnavailableError, VmnetError, WaitTimeoutError

_POLL_S: Final = 0.005
log = logging.getLogger(__name__)
_ACL_TABLE: Final = 0
"""Faucet's table ``port_acl`` is its first one where there are ACLs on interfaces."""


class FaucetRerouter:
    def __init__(
        self,
        control: FaucetControl,
        hosts: Hosts,
        file: Path,
        vlan: str,
        switches: Mapping[str, Address],
        limit_s: float,
    ) -> None:
        self._control, self._hosts, self._file = control, hosts, file
        self._vlan, self._addresses, self._limit_s = vlan, switches, limit_s
        self._switches: dict[str, Switch] = {}
        self._changing = asyncio.Lock()

    async def prepare(self, move: Move) -> None:
        async with self._changing:
            fabric, ways, entries = self._now(move)
            if faucet_acls.at_stage(entries, Stage.CUT, move, ways, fabric) and ways:
                return
            faucet_acls.check_acls(ways, fabric)
            self._control.check_unchanged(fabric, await self._control.running())
            await self._control.checker.check(self._text(entries, Stage.CUT, move, ways, fabric))
            try:
                await self._go(Stage.PREPARED, move, check=True)
            except VmnetError:
                await self._take_back(move)
                raise

    async def _take_back(self, move: Move) -> None:
        """Nothing takes the new way yet; that it cannot even be taken back must not hide why it could not be made."""
        try:
            await self._go(Stage.NONE, move)
        except VmnetError as error:
            log.warning("the way for %s to %s is not taken back: %s", move.vm, move.destination, error)

    async def cut_over(self, move: Move) -> None:
        async with self._changing:
            _, ways, entries = self._now(move)
            if ways and not any(one.move == move.id for one in entries):
                raise RefusedError(f"the way of {move.vm} to {move.destination} has not been prepared")
            await self._go(Stage.CUT, move, check=True)

    async def finish(self, move: Move) -> None:
        async with self._changing:
            _, ways, entries = self._now(move)
            if any(one.move == move.id for one in entries):
                await self._learned(move, ways)
                await self._go(Stage.NONE, move)

    async def roll_back(self, move: Move) -> None:
        """First as prepared, then as before: no datapath sends on the old way what another would still send back.

        The file is put back even if Faucet, or a switch, is not there: it starts with it.
        """
        async with self._changing:
            fabric, ways, entries = self._now(move)
            own = [one for one in entries if one.move == move.id]
            try:
                if own and not faucet_acls.at_stage(own, Stage.PREPARED, move, ways, fabric):
                    await self._go(Stage.PREPARED, move)
                await self._go(Stage.NONE, move)
            except UnavailableError:
                self._control.put(self._text(entries, Stage.NONE, move, ways, fabric))
                raise

    async def close(self) -> None:
        for one in self._switches.values():
            one.close()
        self._switches.clear()

    def _now(self, move: Move) -> tuple[Fabric, list[Turn], set[Entry]]:
        fabric = self._control.fabric()
        ways = faucet_acls.turns(move, self._hosts, fabric)
        own = faucet_config.parse(self._control.text(), self._file)
        return fabric, ways, set(faucet_file.entries_in(own.get("acls") or {}))

    def _text(
        self, entries: Iterable[Entry], stage: Stage, move: Move, ways: list[Turn], fabric: Fabric
    ) -> str:
        vid = fabric.vid(self._vlan) if self._vlan else None
        return faucet_file.written(faucet_acls.staged(entries, stage, move, ways, fabric), fabric, vid)

    async def _go(self, stage: Stage, move: Move, check: bool = False) -> None:
        fabric, ways, entries = self._now(move)
        text = self._text(entries, stage, move, ways, fabric)
        if check:
            await self._control.checker.check(text)

        def connected(now: Running) -> None:
            if check and (gone := sorted({one.datapath for one in ways} - now.up)):
                raise UnavailableError(f"Faucet has no connection to {', '.join(gone)}")

        await self._control.apply(text, connected)
        expected = faucet_acls.wanted(stage, move, ways, fabric)
        for datapath in sorted({one.datapath for one in ways} & self._addresses.keys()):
            await self._read_back(datapath, {one for one in expected if one.datapath == datapath}, move)

    # -- what the switches say ------------------------------------------------------------------------------------------

    async def _read_back(self, datapath: str, expected: set[Entry], move: Move) -> None:
        wanted = {(one.in_port, one.mac): (one.out_port,) for one in expected}
        macs = {one.lower() for one in move.macs}

        async def there() -> bool:
            return await self._entries(datapath, macs) == wanted

        await self._until(there, f"{datapath} has not the entries that Faucet gave it")

    async def _entries(self, datapath: str, macs: set[str]) -> dict[tuple[int, str], tuple[int, ...]]:
        found = {}
        for one in await (await self._switch(datapath)).flows(table=_ACL_TABLE):
            if one.flow.match.fields().keys() - {Field.VLAN_VID} == {Field.IN_PORT, Field.ETH_DST}:
                mac = (one.flow.match.get(Field.ETH_DST) or b"").hex(":")
                if mac in macs:
                    port = int.from_bytes(one.flow.match.get(Field.IN_PORT) or b"", "big")
                    found[port, mac] = tuple(action.outputs(one.flow.instructions))
        return found

    async def _switch(self, datapath: str) -> Switch:
        if datapath not in self._switches:
            switch = await Switch.connect(self._addresses[datapath], on_lost=lambda: self._lost(datapath))
            self._switches[datapath] = switch
        return self._switches[datapath]

    def _lost(self, datapath: str) -> None:
        self._switches.pop(datapath, None)

    async def _learned(self, move: Move, ways: list[Turn]) -> None:
        """Without our entries, packets go where Faucet believes the VM to be: it has to have heard it at its new place."""
        macs = [one.lower() for one in move.macs]

        async def everywhere() -> bool:
            learned = (await self._control.running()).learned
            return all(learned.get((one.datapath, mac)) == one.new.number for one in ways for mac in macs)

        await self._until(everywhere, f"Faucet has not heard {move.vm} at {move.destination}")

    async def _until(self, condition: Callable[[], Any], what: str) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                while not await condition():
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise WaitTimeoutError(f"{what} within {self._limit_s:g} s") from None


def open_faucet(settings: Mapping[str, Any]) -> FaucetRerouter:
    """ConfigError if the settings, or Faucet's files, do not fit together."""
    given = Settings(settings)
    pid_file = given.text("pid_file", "")
    place = Place(
        config=given.path("config").resolve(),
        file=given.path("file").resolve(),
        metrics=given.url("metrics"),
        check=given.text("check", "check_faucet_config"),
        pid_file=Path(pid_file) if pid_file else None,
        limit_s=given.seconds("limit_s", 10.0),
    )
    hosts = {name: given.texts(ways, f"hosts.{name}") for name, ways in given.table("hosts").items()}
    vlan = given.text("vlan", "")
    addresses = {
        name: parse(one) for name, one in given.texts(given.table("switches", {}), "switches").items()
    }
    given.done()
    control = FaucetControl(place)
    fabric = control.fabric()
    faucet_config.included(place.config, read(place.config), place.file)
    faucet_acls.check_hosts(hosts, fabric)
    if unknown := addresses.keys() - fabric.datapaths.keys():
        raise ConfigError(
            f"Faucet's configuration has no datapath {min(unknown)!r}", "see [rerouter.settings.switches]"
        )
    if vlan:
        fabric.vid(vlan)
    return FaucetRerouter(control, hosts, place.file, vlan, addresses, place.limit_s)
