"""The fabric's switches, connected to: their ports' numbers, their tables, and the topology that follows."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

from controller_bridge.fabric import End, Fabric
from controller_bridge.openflow.flow import FlowStats
from controller_bridge.switch import Switch
from controller_bridge.topology import Place, Topology
from vmnet.errors import ConfigError, VmnetError

LIMIT_S: Final = 5.0


class Connected:
    """``ports``: by switch, name -> number."""

    def __init__(
        self, fabric: Fabric, switches: Mapping[str, Switch], ports: Mapping[str, Mapping[str, int]]
    ) -> None:
        self.fabric, self.switches, self.ports = fabric, switches, ports
        self.topology = Topology(
            fabric.switches, [(self.place(one), self.place(other)) for one, other in fabric.links]
        )

    @classmethod
    async def to(cls, fabric: Fabric, tls: ssl.SSLContext | None = None) -> Connected:
        """To all of them. UnavailableError if one does not answer, ConfigError if a port that is written down is not there."""
        return (await cls._made(fabric, tls, every=True))[0]

    @classmethod
    async def to_any(
        cls, fabric: Fabric, tls: ssl.SSLContext | None = None
    ) -> tuple[Connected, dict[str, VmnetError]]:
        """As :meth:`to`, without those that do not answer, their links and hosts; and why each does not. An error if none does."""
        return await cls._made(fabric, tls, every=False)

    @classmethod
    async def _made(
        cls, fabric: Fabric, tls: ssl.SSLContext | None, every: bool
    ) -> tuple[Connected, dict[str, VmnetError]]:
        made = await asyncio.gather(
            *(Switch.connect(one, tls, limit_s=LIMIT_S) for one in fabric.switches.values()),
            return_exceptions=True,
        )
        switches = {
            name: one for name, one in zip(fabric.switches, made, strict=True) if isinstance(one, Switch)
        }
        away: dict[str, VmnetError] = {}
        try:
            for name, one in zip(fabric.switches, made, strict=True):
                if isinstance(one, VmnetError):
                    away[name] = type(one)(f"{name}: {one}")
                elif isinstance(one, BaseException):
                    raise one
            if away and (every or not switches):
                raise next(iter(away.values()))
            fabric = fabric.without(away.keys())
            listed = await asyncio.gather(*(one.ports() for one in switches.values()))
            ports = {
                name: {port.name: port.number for port in some}
                for name, some in zip(switches, listed, strict=True)
            }
            return cls(fabric, switches, ports), away
        except BaseException:
            for one in switches.values():
                one.close()
            raise

    def place(self, end: End) -> Place:
        """ConfigError if the switch has no such port."""
        ports = self.ports[end.switch]
        if end.port in ports:
            return Place(end.switch, ports[end.port])
        if end.port.isdecimal() and int(end.port) in ports.values():
            return Place(end.switch, int(end.port))
        raise ConfigError(f"{end.switch} has no port {end.port!r}", f"it has {', '.join(sorted(ports))}")

    def name(self, place: Place) -> str:
        """As people write it."""
        named = {number: name for name, number in self.ports[place.switch].items()}
        return f"{place.switch}:{named.get(place.port, place.port)}"

    async def tables(self) -> dict[str, list[FlowStats]]:
        """All flows of all switches."""
        read = await asyncio.gather(*(one.flows() for one in self.switches.values()))
        return dict(zip(self.switches, read, strict=True))

    def close(self) -> None:
        for one in self.switches.values():
            one.close()
