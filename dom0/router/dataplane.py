"""A router's data plane on this host: its namespace, its ports in the host's bridges, and the VM's taps behind them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_interface
from types import MappingProxyType
from typing import Final

from dom0.dataplane import classifier, netdev, netns, wire
from dom0.dataplane.announce import announcements, gratuitous_arp
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate_memory import Bounds
from dom0.dataplane.gate_program import Mode
from dom0.dataplane.names import park_name
from dom0.dataplane.park import NO_OFFLOAD, Park
from dom0.dataplane.sender import Sender
from dom0.router import namespace
from dom0.router.namespace import RouterInterface
from dom0.router.port import Address, OwnAddresses, RouterPort
from vmnet.control_rules import ControlRule

MANAGEMENT_MAC: Final = bytes.fromhex("02766d000001")
"""Of the host's end of every management link: the VM's ARP entry for it holds on whichever host it runs."""


@dataclass(frozen=True)
class Layout:
    """What a router's data plane is made of on this host. ``data``: by MAC; ``management``: None without such a link."""

    namespace: str
    data: Mapping[bytes, RouterInterface]
    management: RouterInterface | None
    management_address: str


class DataPlane:
    """Make one, then :meth:`make` its devices, then :meth:`connect` the VM."""

    def __init__(self, layout: Layout, rules: Sequence[ControlRule], bounds: Bounds) -> None:
        self.layout = layout
        self.addresses = OwnAddresses()
        self.ports: dict[bytes, RouterPort] = {}
        self._rules, self._bounds = rules, bounds

    def make(self, mode: Mode, talk: bool, taps: Mapping[bytes, str] = MappingProxyType({})) -> None:
        """Namespace, interfaces, ports. OSError if the kernel refuses.

        What is there already is taken over as it is: ``taps``, by MAC, are then those of a VM that runs. Its addresses are set before.
        """
        namespace.make(self.layout.namespace)
        there = namespace.interfaces(self.layout.namespace)
        for mac, interface in self.layout.data.items():
            self._add(interface, there)
            self.ports[mac] = RouterPort(
                interface, self.addresses, self._rules, self._bounds, mode, talk, taps.get(mac)
            )
            namespace.bring_up(self.layout.namespace, interface)
        if self.layout.management is not None:
            self._add(replace(self.layout.management, mac=MANAGEMENT_MAC), there)
            namespace.bring_up(self.layout.namespace, self.layout.management)
            namespace.add_address(
                self.layout.namespace, self.layout.management.index, self.layout.management_address
            )

    def _add(self, interface: RouterInterface, there: Mapping[str, int]) -> None:
        """A veth of another index (the VM's interfaces have changed) is made anew."""
        if there.get(interface.name) == interface.index and netdev.exists(interface.port):
            return
        namespace.delete_port(interface.port)
        namespace.add_interface(self.layout.namespace, interface)
        classifier.make_ready(interface.port)

    def connect(self, taps: Mapping[bytes, str], talk: bool = False) -> None:
        """The VM's taps, by MAC. ``talk``: the ports were silent until now, and are no longer."""
        for mac, tap in taps.items():
            port = self.ports.get(mac)
            if port is not None:
                port.connect_tap(tap, talk)
            elif self.layout.management is not None and mac == self.layout.management.mac:
                self._connect_management(self.layout.management.port, tap)

    def _connect_management(self, port: str, tap: str) -> None:
        wire.attach(tap, port, ingress=False)
        wire.attach(port, tap, ingress=False)
        own = ip_interface(self.layout.management_address).ip
        if isinstance(own, IPv4Address):
            # the VM may have known another device by that address
            with closing(Sender(tap)) as to_vm:
                to_vm.send(NO_OFFLOAD + gratuitous_arp(MANAGEMENT_MAC, own))

    def disconnect(self) -> None:
        """The VM has ended, or left: its taps are gone or belong to nobody."""
        for port in self.ports.values():
            port.disconnect_tap()

    def set_addresses(self, addresses: Iterable[Address]) -> None:
        self.addresses.set(addresses)

    def set_mode(self, mode: Mode) -> None:
        for port in self.ports.values():
            port.mode = mode

    def mute(self) -> None:
        """Nothing that the namespace may still have to say calls the VM's addresses here."""
        for port in self.ports.values():
            port.talk = False

    def close(self) -> None:
        """Our memory of it; the kernel goes on forwarding."""
        for port in self.ports.values():
            port.close()
        self.addresses.close()

    def remove(self) -> None:
        """All of it. What it still had under way is lost, so first let nothing arrive."""
        remove(self.layout)
        self.close()


def remove(layout: Layout) -> None:
    """Also one that an earlier daemon made. Nothing happens for what has gone."""
    for interface in layout.data.values():
        namespace.delete_port(interface.port)
    if layout.management is not None:
        namespace.delete_port(layout.management.port)
    netns.delete(layout.namespace)


def release_taps(taps: Iterable[str]) -> None:
    """The VM's taps are its own again: nothing of ours is on them."""
    for tap in taps:
        with contextlib.suppress(OSError):
            classifier.detach(tap, Direction.INGRESS)


def announce_at(tap: str, mac: bytes, mtu: int, addresses: Iterable[Address]) -> None:
    """The fabric learns that the VM is behind ``tap``, without waiting for it to say something."""
    with closing(Park(park_name(secrets.randbelow(1 << 24)), 16, mtu, gated=False)) as park:
        wire.attach(park.name, tap, ingress=True)
        for frame in announcements(mac, addresses):
            park.inject(frame)
