"""A guest's interfaces, and how each is wired to the host it goes to: drawn up when that host asks for the guest."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from dom0.claim import Wire
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
class Wiring:
    """``local``, ``remote``: the tunnels' ends. ``taps``, ``bridges``: the guest's here, by MAC."""

    wires: tuple[Wire, ...] = ()
    local: str = ""
    remote: str = ""
    taps: Mapping[str, str] = field(default_factory=dict)
    bridges: Mapping[str, str] = field(default_factory=dict)

    def tap(self, wire: Wire) -> str:
        return self.taps[wire.mac]

    def stretched(self) -> dict[str, str]:
        """Tunnel device -> the bridge here that goes on forwarding into it."""
        return {
            names.tunnel_name(wire.lan_vni): self.bridges[wire.mac]
            for wire in self.wires
            if wire.stretched and wire.mac in self.bridges
        }

    def actions(self, recorder_bytes: int) -> list[Action]:
        """What is made of it here, where each interface's last packets are copied into ``recorder_bytes``."""
        return [
            action
            for wire in self.wires
            for action in (
                Action(Kind.TUNNEL, names.tunnel_name(wire.vni)),
                Action(Kind.GATE, self.tap(wire)),
                _queue(self.tap(wire), recorder_bytes),
                Action(Kind.TUNNEL, names.tunnel_name(wire.lan_vni)),
            )
        ]


def _queue(tap: str, recorder_bytes: int) -> Action:
    before = netdev.get_queue_length(tap)
    return Action(
        Kind.QUEUE, tap, str(max(before, ring.room(recorder_bytes, netdev.get_mtu(tap)))), str(before)
    )


def draw(
    info: DomainInfo, claim: ClaimRequest, binding: Binding, local: str, management: str | None, links: bool
) -> Wiring:
    """RefusedError if there is nothing to wire. ``management``: a router's interface to its own host, which every host has.

    ``links``: the guest is a router whose data plane moves apart from it, by tunnels of its own.
    """
    found = [one for one in info.interfaces if _usable(one) and one.mac != management]
    if not found:
        raise RefusedError(f"VM {info.name!r} has no interface on a bridge", "vmnet has nothing to do for it")
    return Wiring(
        tuple(_wire(one, claim, binding, links) for one in found),
        local,
        claim.tunnel_address,
        {one.mac: str(one.target_dev) for one in found},
        {one.mac: one.bridge for one in found if one.bridge},
    )


def _usable(one: Interface) -> bool:
    return one.target_dev is not None and netdev.exists(one.target_dev)


def _wire(interface: Interface, claim: ClaimRequest, binding: Binding, links: bool) -> Wire:
    segment = binding.segment_of(interface.mac)
    stretched = claim.segments.get(interface.mac, segment) != segment
    return Wire(interface.mac, _random_vni(), stretched, segment, _random_vni() if links else 0)


def _random_vni() -> int:
    return secrets.randbelow(0xFFFFFE) + 1
