"""A guest's interfaces, and how each is wired to the host it goes to when that asks for the guest."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dom0.bridge_port import BridgePort
from dom0.claim import MOST_INTERFACES, Wire
from dom0.dataplane import names, netdev, ring
from vmnet.actions import Action, Kind
from vmnet.domain_xml import DomainInfo, Interface
from vmnet.errors import RefusedError
from vmnet.store import Binding


@dataclass(frozen=True)
class ClaimRequest:
    """What the destination says about itself when it asks for a VM: ``segments`` by MAC."""

    destination: str
    tunnel_address: str
    segments: dict[str, str]


@dataclass(frozen=True)
class Outlet:
    """A guest's interface here. ``vni``: of the tunnel that will lead to its new host."""

    mac: str
    tap: str
    bridge: str
    vni: int

    def actions(self, recorder_bytes: int) -> list[Action]:
        """What is made of it before the migration begins; its last packets are copied into ``recorder_bytes``."""
        before = netdev.get_queue_length(self.tap)
        room = ring.room(recorder_bytes, netdev.get_mtu(self.tap))
        return [
            Action(Kind.GATE, self.tap),
            Action(Kind.QUEUE, self.tap, str(max(before, room)), str(before)),
        ]


def with_taps(info: DomainInfo) -> list[tuple[Interface, str]]:
    """The interfaces that have a tap here, each with it. A macvtap is none: its guest has no queue of a tap's."""
    return [
        (one, one.target_dev)
        for one in info.interfaces
        if one.target_dev is not None and netdev.is_tap(one.target_dev)
    ]


def on_bridges(info: DomainInfo) -> list[tuple[Interface, str]]:
    """Those of :func:`with_taps` that a bridge forwards to. A tap of kind "ethernet" may be in one, or be routed to."""
    return [(one, tap) for one, tap in with_taps(info) if one.bridge or netdev.is_switched(tap)]


def problems(info: DomainInfo) -> list[str]:
    """Why nothing can be done for the VM, or not in order."""
    usable = on_bridges(info)
    if not usable:
        kinds = ", ".join(unprotected(info)) or "none"
        return [
            f"the VM has no interface with a tap on a bridge (its interfaces: {kinds}): use `virsh migrate`, vmnet has nothing to do"
        ]
    found = []
    if len(usable) > MOST_INTERFACES:
        found.append(f"the VM has {len(usable)} interfaces, and vmnet moves {MOST_INTERFACES} at most")
    found += [
        f"the bridge of {tap} learns no addresses (ageing time 0): it floods vmnet's own tunnel packets to the VM, which are sent on, "
        f"flooded again, and so on; give it one (`ip link set BRIDGE type bridge ageing_time 30000`)"
        for _one, tap in usable
        if netdev.bridge_only_floods(tap)
    ]
    for mac, times in Counter(one.mac for one, _tap in usable).items():
        if times > 1:
            found.append(
                f"{times} interfaces have the MAC address {mac}, by which vmnet tells them apart: give each its own"
            )
    return found


def unprotected(info: DomainInfo) -> tuple[str, ...]:
    """In words, the interfaces at which nothing can be held: what comes for them while the VM moves is lost."""
    taps, usable = [one for one, _tap in with_taps(info)], [one for one, _tap in on_bridges(info)]
    return tuple(
        f"{one.mac} (type '{one.kind}', {'a tap on no bridge' if one in taps else 'no tap'})"
        for one in info.interfaces
        if one not in usable
    )


def late_qdisc(tap: str, host: str) -> str:
    """In words, as :func:`unprotected`: ``tap`` got its qdisc when the migration began, not when the VM was started."""
    return (
        f"the VM's tap {tap} on {host} as the migration began: a limit of what the VM sends had been taken away, and before "
        "Linux 6.6 the kernel drops what comes while vmnet's qdisc is added"
    )


def outlets(info: DomainInfo, management: str | None) -> tuple[Outlet, ...]:
    """RefusedError if nothing can be done for them. ``management``: a router's interface to its own host, which every host has."""
    if against := problems(info):
        raise RefusedError("; ".join(against))
    found = tuple(
        Outlet(one.mac, tap, one.bridge or "", _random_vni())
        for one, tap in on_bridges(info)
        if one.mac != management
    )
    if not found:
        raise RefusedError(
            f"VM {info.name!r} has no interface but its management link", "vmnet has nothing to do for it"
        )
    return found


@dataclass(frozen=True)
class Wiring:
    """``local``, ``remote``: the tunnels' ends. ``bridges``: the guest's here, by MAC; ``places``: its ports' settings there, too."""

    wires: tuple[Wire, ...] = ()
    local: str = ""
    remote: str = ""
    bridges: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, BridgePort] = field(default_factory=dict)

    def stretched(self) -> dict[str, str]:
        """Tunnel device -> the bridge here that goes on forwarding into it, and as which port: the text of a :class:`BridgePort`."""
        return {
            names.tunnel_name(wire.lan_vni): str(self.places.get(wire.mac, self.bridges[wire.mac]))
            for wire in self.wires
            if wire.stretched and wire.mac in self.bridges
        }

    def actions(self) -> list[Action]:
        """What is made here when the destination has asked."""
        return [
            Action(Kind.TUNNEL, names.tunnel_name(vni))
            for wire in self.wires
            for vni in (wire.vni, wire.lan_vni)
        ]


def draw(found: Sequence[Outlet], claim: ClaimRequest, binding: Binding, local: str, links: bool) -> Wiring:
    """``links``: the guest is a router whose data plane moves apart from it, by tunnels of its own."""
    return Wiring(
        tuple(_wire(one, claim, binding, links) for one in found),
        local,
        claim.tunnel_address,
        {one.mac: one.bridge for one in found if one.bridge},
    )


def _wire(outlet: Outlet, claim: ClaimRequest, binding: Binding, links: bool) -> Wire:
    segment = binding.segment_of(outlet.mac)
    stretched = claim.segments.get(outlet.mac, segment) != segment
    return Wire(outlet.mac, outlet.vni, stretched, segment, _random_vni() if links else 0)


def _random_vni() -> int:
    """Of a tunnel that is not here."""
    here = netdev.all_names()
    while names.tunnel_name(vni := secrets.randbelow(0xFFFFFE) + 1) in here:
        pass
    return vni
