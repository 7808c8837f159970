"""Which ways packets take through a lab's OpenFlow fabric: by its switches' own tables, read from them, and by nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from controller_bridge import fabric, trace
from controller_bridge.connected import Connected
from controller_bridge.core.answers import GATEWAY_MAC
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Field
from vmnet.lab import places
from vmnet.lab.lab import Lab
from vmnet.lab.node import Node

_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
Address = IPv4Interface | IPv6Interface


@dataclass(frozen=True)
class Station:
    """A client or a VM. ``at``: the node that its link to the fabric is on (a VM's host); ``port``: that link's other end."""

    name: str
    at: str
    port: str
    mac: bytes
    addresses: tuple[Address, ...]

    def address(self, version: int) -> Address:
        return next(one for one in self.addresses if one.version == version)


@dataclass(frozen=True)
class Way:
    """``switches``: as they are met; ``end``: the port where it leaves the fabric, None (and ``why``) if it does not."""

    switches: tuple[str, ...]
    end: str | None
    why: str

    @property
    def links(self) -> int:
        """How many are passed, the first and the last included."""
        return len(self.switches) + 1


@dataclass(frozen=True)
class Tables:
    """What all switches of a fabric said when they were asked."""

    fabric: Connected
    flows: Mapping[str, Sequence[Flow]]

    def way(self, source: Station, target: Station, version: int = 4) -> Way:
        """That of an IP packet, to ``target`` itself if it is in the same subnet, else to the gateway."""
        switch, _, port = source.port.partition(":")
        start = self.fabric.place(fabric.End(switch, port))
        found = trace.walk(self.flows, self.fabric.topology, start, packet(source, target, version))
        end = None if found.end is None else self.fabric.name(found.end)
        return Way(tuple(hop.switch for hop in found.path), end, found.why)

    def hops(self, source: Station, target: Station, version: int = 4) -> int | None:
        """Links from one to the other; None if the tables do not lead there."""
        way = self.way(source, target, version)
        return way.links if way.end == target.port else None


def packet(source: Station, target: Station, version: int) -> dict[int, bytes]:
    here, there = source.address(version), target.address(version)
    mac = target.mac if there.ip in here.network else GATEWAY_MAC
    names = (Field.IPV4_SRC, Field.IPV4_DST) if version == 4 else (Field.IPV6_SRC, Field.IPV6_DST)
    return {
        Field.ETH_SRC: source.mac,
        Field.ETH_DST: mac,
        Field.ETH_TYPE: _IPV4 if version == 4 else _IPV6,
        names[0]: here.ip.packed,
        names[1]: there.ip.packed,
    }


def read(node: Node) -> Tables:
    """By a node that has the fabric's file: a host, or the controller's. UnavailableError if a switch does not answer."""
    known = fabric.read(node.var_dir / "etc-vmnet" / "fabric.toml")

    async def ask() -> Tables:
        connected = await Connected.to(known)
        try:
            read = await connected.tables()
        finally:
            connected.close()
        return Tables(connected, {name: [one.flow for one in some] for name, some in read.items()})

    return node.call(lambda: asyncio.run(ask()))


def stations(lab: Lab) -> dict[str, Station]:
    """Mobile clients, and VMs that run: by name, where they are now."""
    now = Lab.load(lab.name)
    found = {}
    for one in places.mobile(now.topology):
        spec = now.topology.nodes[one.client.node]
        addresses = tuple(map(ip_interface, spec.addresses[one.client.port]))
        mac = bytes.fromhex(spec.macs[one.client.port].replace(":", ""))
        found[spec.name] = Station(spec.name, spec.name, places.name(one.switch), mac, addresses)
    for running in now.running_vms():
        first = now.vm(running.vm).interfaces[0]
        mac, addresses = bytes.fromhex(first.mac.replace(":", "")), tuple(map(ip_interface, first.addresses))
        found[running.vm] = Station(
            running.vm, running.host, _uplink(now, running.host, first.bridge), mac, addresses
        )
    return found


def _uplink(lab: Lab, host: str, bridge: str) -> str:
    """The switch's port that a host's bridge hangs on."""
    spec = lab.topology.nodes[host]
    ports = next(one.ports for one in spec.bridges if one.name == bridge)
    across = lab.topology.across()
    return next(places.name(other) for end, other in across.items() if end.node == host and end.port in ports)
