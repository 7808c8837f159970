"""What a lab consists of. Frozen, complete and valid once it exists; see schema.py for how files are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any, Literal

NodeKind = Literal["host", "client", "switch", "router"]
BridgeKind = Literal["linux", "ovs", "ovn"]
"""ovn: an Open vSwitch that OVN's ovn-controller steers, its segment a logical switch."""

LINK_MTU = 9000
"""Room for a tunnelled 1500-byte frame, so that nothing is fragmented."""
GUEST_MTU = 1500
PORT_NAME = r"[A-Za-z0-9_.-]{1,15}"
MACHINE_PORTS = 8
"""As many interfaces can be plugged into a machine."""
MACHINE_NAMES = ("lo", "mgmt")
"""Interfaces that a machine has besides the ends of links."""
SWITCH = "switch"
"""The bridge of every switch."""


@dataclass(frozen=True)
class OpenFlow:
    """How a switch and a controller come to speak with each other, besides the socket ``switch.mgmt``."""

    listen_port: int
    """TCP port at which the switch waits for a controller; 0: it does not."""
    controller: str
    """Where the switch looks for its controller, as ovs-vsctl(8) writes it; empty: nowhere."""


@dataclass(frozen=True)
class Bridge:
    name: str
    kind: BridgeKind
    segment: str
    ports: tuple[str, ...]
    mtu: int
    mac: str
    flows: tuple[str, ...] = ()
    """Open vSwitch only: all that it forwards by, until a controller says otherwise. Empty, and no ``openflow``: it learns."""
    openflow: OpenFlow | None = None
    """Open vSwitch only: a controller alone says how it forwards."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Open vSwitch only: OpenFlow's numbers of ports that are to have the same ones whenever they come."""

    @property
    def datapath(self) -> str:
        """Open vSwitch's identifier of a bridge with that MAC address, in hexadecimal."""
        return f"0000{self.mac.replace(':', '')}"

    @property
    def is_vswitch(self) -> bool:
        """Whether Open vSwitch makes it."""
        return self.kind != "linux"

    @property
    def secure(self) -> bool:
        """Whether it forwards nothing that no flow forwards."""
        return bool(self.flows) or self.openflow is not None or self.kind == "ovn"


@dataclass(frozen=True)
class Frr:
    """FRR in a node."""

    daemons: tuple[str, ...]
    config: str
    """What vtysh reads at the start."""
    announce_ipv4: int = 0
    announce_ipv6: int = 0
    """Blackhole routes of the kernel, for the config to redistribute."""


@dataclass(frozen=True)
class Machine:
    """A node that is a full Debian under QEMU; its namespace holds QEMU and the wires to it."""

    release: Literal[12, 13] = 12
    vcpus: int = 1
    memory_mib: int = 1536


@dataclass(frozen=True)
class Node:
    """One network namespace."""

    name: str
    kind: NodeKind
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gateways: tuple[str, ...] = ()
    macs: Mapping[str, str] = field(default_factory=dict)
    plain_checksums: tuple[str, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    proxy_arp: bool = False
    daemon: bool = False
    hooks: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    frr: Frr | None = None
    controller: Mapping[str, Any] | None = None
    """Of a client: vmnet-controllerd runs there, with these settings over those that the lab works out."""
    ovn_central: bool = False
    """Of a client: OVN's databases and northd run there."""
    machine: Machine | None = None
    """Of a host or switch: bridges and addresses are inside the machine."""
    access: tuple[str, ...] = ()
    """Of a switch: ports that clients may be moved to, whether or not a link is there now."""

    @property
    def own_vswitches(self) -> tuple[Bridge, ...]:
        """Bridges of Open vSwitch in the namespace itself; a machine's are inside it."""
        return () if self.machine else tuple(bridge for bridge in self.bridges if bridge.is_vswitch)

    @property
    def underlay(self) -> str:
        """The first IPv4 address: libvirt, peers, tunnels and OVN use it. Empty when there is none."""
        every = (ip_interface(a) for group in self.addresses.values() for a in group)
        return next((str(i.ip) for i in every if i.version == 4), "")


@dataclass(frozen=True)
class End:
    node: str
    port: str


@dataclass(frozen=True)
class Link:
    ends: tuple[End, End]
    mtu: int


@dataclass(frozen=True)
class VmInterface:
    bridge: str
    mac: str
    addresses: tuple[str, ...]
    mtu: int
    plain_checksums: bool = False
    """The guest fills in checksums itself, as beside userspace Open vSwitch it must."""


@dataclass(frozen=True)
class Vm:
    name: str
    host: str
    memory: int
    """MiB."""
    image: Literal["small", "router"]
    machine: str | None
    interfaces: tuple[VmInterface, ...]
    gateways: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    """Path in the guest -> text; over those of the image."""
    agent: str = ""
    """ADDRESS:PORT that the guest's agent connects to; empty: it is not started."""
    game: bool = False
    """The guest serves the game (guest/game.c)."""


@dataclass(frozen=True)
class Topology:
    nodes: Mapping[str, Node]
    links: tuple[Link, ...]
    vms: Mapping[str, Vm]

    @property
    def hosts(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes.values() if n.kind == "host")

    @property
    def central(self) -> Node | None:
        """Where OVN's databases are, if there is OVN."""
        return next((n for n in self.nodes.values() if n.ovn_central), None)

    def ports(self, node: str) -> tuple[str, ...]:
        """Names of the link ends on a node, in the order of the file."""
        return tuple(e.port for link in self.links for e in link.ends if e.node == node)

    def across(self) -> dict[End, End]:
        """For each link's end the other one."""
        return {one: other for link in self.links for one, other in (link.ends, link.ends[::-1])}


def stable_mac(*what: str, prefix: str = "52:54:00") -> str:
    """A MAC address that is the same in every run."""
    digest = hashlib.sha256("/".join(what).encode()).hexdigest()
    return f"{prefix}:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"
