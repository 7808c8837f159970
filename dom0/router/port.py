"""A router's port: our device in the host's bridge in place of the VM's tap, with the split in front of the namespace."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from dom0.dataplane import bpf_syscall, classifier, netdev, wire
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate_memory import Bounds, GateMemory
from dom0.dataplane.gate_program import Mode, Word
from dom0.router.namespace import RouterInterface
from dom0.router.split_program import (
    ADDRESS_KEY_BYTES,
    MOST_ADDRESSES,
    address_key,
    split_code,
    talk_code,
)
from vmnet.control_rules import ControlRule

Address = IPv4Address | IPv6Address


class OwnAddresses:
    """The router's own addresses, as its ports' programs look them up."""

    def __init__(self) -> None:
        self.map_fd = bpf_syscall.create_set(ADDRESS_KEY_BYTES, MOST_ADDRESSES, "vmnet_addresses")
        self.known: frozenset[Address] = frozenset()

    def set(self, addresses: Iterable[Address]) -> None:
        """New ones are there before old ones go; no more than the programs' table takes."""
        wanted = frozenset(sorted(addresses, key=lambda one: (one.version, one))[:MOST_ADDRESSES])
        for gone in self.known - wanted:
            bpf_syscall.remove_from_set(self.map_fd, address_key(gone.packed))
        for new in wanted - self.known:
            bpf_syscall.add_to_set(self.map_fd, address_key(new.packed))
        self.known = wanted

    def close(self) -> None:
        os.close(self.map_fd)


class RouterPort(GateMemory):
    """``mode`` is what happens to data; control follows the VM's tap. Silent until :attr:`talk` is set.

    Made anew on a device that is there already (a daemon that starts again) it takes over without a frame lost; ``tap`` is the VM's.
    """

    def __init__(
        self,
        interface: RouterInterface,
        addresses: OwnAddresses,
        rules: Sequence[ControlRule],
        bounds: Bounds,
        mode: Mode,
        talk: bool,
        tap: str | None = None,
    ) -> None:
        super().__init__("vmnet_split", mode, bounds)
        self.interface = interface
        self.name = interface.port
        self.tap = tap
        if tap is not None:
            self.set(Word.TAP_IFINDEX, netdev.index_of(tap))
        self.set(Word.TALK, int(talk))
        self.ifindex = netdev.index_of(self.name)
        split = split_code(self.map_fd, addresses.map_fd, rules)
        classifier.load_and_attach(self.name, Direction.EGRESS, split, "vmnet_split")
        classifier.load_and_attach(self.name, Direction.INGRESS, talk_code(self.map_fd), "vmnet_talk")

    @property
    def talk(self) -> bool:
        """Whether anything that the router sends here, from the VM or the namespace, gets out."""
        return bool(self.get(Word.TALK))

    @talk.setter
    def talk(self, on: bool) -> None:
        self.set(Word.TALK, int(on))

    @property
    def patience(self) -> int:
        """So many times as long as they ask for the VM waits for its BFD neighbours (0: as they ask)."""
        return self.get(Word.PATIENCE)

    @patience.setter
    def patience(self, factor: int) -> None:
        self.set(Word.PATIENCE, factor)

    def connect_tap(self, tap: str, talk: bool = False) -> None:
        """Control goes to ``tap``; what the VM sends there comes in here. ``talk``: and gets out from here, from now on."""
        # in this order: as soon as the bridge learns the VM's address from here, what is for it comes here, too
        self.set(Word.TAP_IFINDEX, netdev.index_of(tap))
        if talk:
            self.talk = True
        wire.attach(tap, self.name, ingress=True)
        self.tap = tap

    @property
    def hangs_on_tunnel(self) -> bool:
        """Its LAN is not here."""
        return bool(self.get(Word.LINK_IFINDEX))

    def hang_on(self, tunnel: str) -> None:
        """``tunnel`` is the router's link here: what is sent goes out there, what comes in there is the router's."""
        self.set(Word.LINK_IFINDEX, netdev.index_of(tunnel))
        wire.attach(tunnel, self.name, ingress=False)

    def disconnect_tap(self) -> None:
        """The VM does not run here (any more): control has nowhere to go."""
        self.set(Word.TAP_IFINDEX, 0)
        if self.tap is not None:
            classifier.detach(self.tap, Direction.INGRESS)
        self.tap = None

    def close(self) -> None:
        """Our memory of it; device and programs stay."""
        self.close_memory()
