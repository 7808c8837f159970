"""A Linux bridge that is told where an address is, whatever it hears."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
from dataplane_kit import CLIENT, ETHERTYPE, GUEST, Host, ip

from dom0 import bridges

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MAC = GUEST.hex(":")


class Wires:
    """The far ends of two of a bridge's ports: ``guest``'s, called ``tap``, and ``uplink``'s."""

    def __init__(self, guest: socket.socket, uplink: socket.socket) -> None:
        self.guest, self.uplink = guest, uplink

    def reaches_guest(self, words: bytes) -> bool:
        """Whether a frame for it that comes by the uplink does. A broadcast behind it shows when it is late."""
        self.uplink.send((GUEST + CLIENT + ETHERTYPE + words).ljust(60, b"\0"))
        self.uplink.send((b"\xff" * 6 + CLIENT + ETHERTYPE + b"end of " + words).ljust(60, b"\0"))
        found = False
        while True:
            frame = self.guest.recv(2048)
            if frame[14:].startswith(b"end of " + words):
                return found
            found = found or (frame[:6] == GUEST and frame[14:].startswith(words))

    def speaks_elsewhere(self) -> None:
        self.uplink.send((b"\xff" * 6 + GUEST + ETHERTYPE + b"here").ljust(60, b"\0"))

    def speaks(self) -> None:
        self.guest.send((b"\xff" * 6 + GUEST + ETHERTYPE + b"here").ljust(60, b"\0"))


def _wire(name: str) -> socket.socket:
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B6))
    one.bind((name, 0x88B6))
    one.settimeout(5)
    return one


@contextmanager
def bridged() -> Iterator[Wires]:
    with Host(), ExitStack() as stack:
        ip("link", "add", "lan", "type", "bridge")
        for name in ("tap", "uplink"):
            ip("link", "add", name, "master", "lan", "type", "veth", "peer", f"{name}-far")
            for end in (name, f"{name}-far", "lan"):
                ip("link", "set", end, "up")
        yield Wires(*(stack.enter_context(closing(_wire(f"{one}-far"))) for one in ("tap", "uplink")))


def test_what_is_for_it_goes_to_its_port_until_the_pin_is_taken_out() -> None:
    with bridged() as wires:
        wires.speaks()
        assert wires.reaches_guest(b"1")
        wires.speaks_elsewhere()
        assert not wires.reaches_guest(b"2"), "what a bridge does by itself"
        bridges.pin("tap", MAC)
        assert wires.reaches_guest(b"3")
        wires.speaks_elsewhere()
        assert wires.reaches_guest(b"4")
        bridges.pin("tap", MAC)  # again
        bridges.pin("tap", MAC, on=False)
        wires.speaks_elsewhere()
        assert not wires.reaches_guest(b"5")
        wires.speaks()
        assert wires.reaches_guest(b"6")


def test_a_port_of_no_linux_bridge_is_left_alone() -> None:
    with Host():
        ip("link", "add", "alone", "type", "veth")
        bridges.pin("alone", MAC)
