"""While a router's VM moves, its neighbours' BFD packets ask it to wait longer, and FRR does."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from dataplane_kit import ip, isolated, until
from frr_kit import FRR, Scene, scene, standing_still
from router_host import CLIENT, LEFT, Lab
from scapy.all import IP, UDP, Ether, IPv6
from scapy.contrib.bfd import BFD

from dom0.dataplane.gate_memory import Bounds
from dom0.dataplane.gate_program import Mode, Word
from dom0.router.bfd import AUTHENTICATION
from dom0.router.dataplane import DataPlane, Layout
from dom0.router.namespace import RouterInterface

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
V4 = IP(src="10.1.0.100", dst="10.1.0.1", ttl=255)
V6 = IPv6(src="fd01::100", dst="fd01::1", hlim=255)


def bfd(over: Any = V4, multiplier: int = 3, port: int = 3784, udp: Any = None, **fields: Any) -> bytes:
    """From the client to the router on its left, in state Up; ``fields`` as scapy names them."""
    usual = {"sta": 3, "flags": 0, "my_discriminator": 22, "your_discriminator": 11}
    header = UDP(sport=49152, dport=port, **(udp or {}))
    packet = over / header / BFD(**usual | fields, detect_mult=multiplier)
    return bytes(Ether(src=CLIENT, dst=LEFT.hex(":")) / packet)


def authenticated() -> bytes:
    frame = bytearray(bfd(udp={"chksum": 0}))
    frame[43] |= AUTHENTICATION
    return bytes(frame)


def cut_off() -> bytes:
    """Shorter than a control packet is; the lengths before it say so, too."""
    frame = Ether(bfd(udp={"chksum": 0}))
    frame[UDP].len -= 1
    frame[IP].len -= 1
    del frame[IP].chksum
    return bytes(frame)[:65]


PROLONGED: dict[str, tuple[dict[str, Any], int]] = {
    "ipv4": ({}, 12),
    "ipv6": ({"over": V6}, 12),
    "several hops away": ({"port": 4784}, 12),
    "no checksum": ({"udp": {"chksum": 0}}, 12),
    "a poll": ({"over": V6, "flags": "P", "multiplier": 1}, 4),
    "as much as there is": ({"multiplier": 100}, 255),
}
AS_IT_WAS = {
    "down": bfd(sta=1),
    "another port": bfd(port=3785),
    "version 0": bfd(version=0),
    "authenticated": authenticated(),
    "cut off": cut_off(),
    "a fragment": bfd(IP(src="10.1.0.100", dst="10.1.0.1", flags="MF")),
}


@contextmanager
def client(lab: Lab, patience: int) -> Iterator[socket.socket]:
    lab.plane.ports[LEFT].patience = patience
    with lab.client:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        wire.bind(("eth0", 0))
    with closing(wire):
        yield wire


def arrives(lab: Lab, wire: socket.socket, sent: bytes, wanted: bytes, what: str) -> None:
    seen: list[bytes] = []
    wire.send(sent)

    def there() -> bool:
        seen.extend(one for one in lab.taps[LEFT].drain() if one[12:14] == sent[12:14])
        return bool(seen)

    until(there, 5, what)
    assert [one.hex() for one in seen if Ether(one).haslayer(UDP)] == [wanted.hex()], what


@isolated()
def test_the_neighbours_ask_for_more_patience_and_for_nothing_else() -> None:
    lab = Lab()
    with client(lab, 4) as wire:
        for what, (fields, multiplier) in PROLONGED.items():
            arrives(lab, wire, bfd(**fields), bfd(**fields | {"multiplier": multiplier}), what)
        assert lab.plane.ports[LEFT].get(Word.PROLONGED) == len(PROLONGED)


@isolated()
def test_what_is_no_session_that_is_up_stays_as_it_was() -> None:
    lab = Lab()
    with client(lab, 4) as wire:
        for what, raw in AS_IT_WAS.items():
            arrives(lab, wire, raw, raw, what)
        assert lab.plane.ports[LEFT].get(Word.PROLONGED) == 0


@isolated()
def test_while_nothing_moves_everything_stays_as_it_was() -> None:
    lab = Lab()
    with client(lab, 0) as wire:
        for what, (fields, _multiplier) in PROLONGED.items():
            arrives(lab, wire, bfd(**fields), bfd(**fields), what)


MAC = bytes.fromhex("525400000001")
SLOW_S = 0.7


@contextmanager
def behind_a_data_plane(here: Scene) -> Iterator[DataPlane]:
    """The scene's router is where a VM would be: its tap behind a port in the host's bridge."""
    os.system("mount -t tmpfs tmpfs /run/netns")
    interface = RouterInterface(2, "eth0", MAC, 1500, "vmr000000.2")
    with here.host:
        plane = DataPlane(Layout("vmnet-vr1", {MAC: interface}, None, ""), [], Bounds(1000, 1 << 20))
        plane.make(Mode.PASS, talk=True)
        ip("link", "set", "tap", "nomaster")
        ip("link", "set", interface.port, "master", "br0")
        plane.connect({MAC: "tap"})
        plane.set_addresses([ip_address("192.0.2.1"), ip_address("2001:db8::1")])
    with closing(plane):
        yield plane


def speaker(own: int, other: int, multiplier: int) -> str:
    """Both sessions' configuration; ``multiplier`` is what its neighbour waits by."""
    peers = "".join(
        f" peer {net}{other} local-address {net}{own}\n  detect-multiplier {multiplier}\n"
        "  receive-interval 100\n  transmit-interval 100\n  no shutdown\n"
        for net in ("192.0.2.", "2001:db8::")
    )
    return f"bfd\n{peers}"


def lost_by_a_slow_router(patience: int) -> set[int]:
    """How many times each of its sessions goes down while it reads nothing for 0.7 s: real time goes on for it, as for a slow VM."""
    with scene("bfdd", speaker(1, 2, 30), speaker(2, 1, 3)) as here, behind_a_data_plane(here) as plane:
        until(lambda: here.router.all_up() and here.neighbour.all_up(), 20, "both sides up")
        port = plane.ports[MAC]
        port.patience = patience
        heard = port.get(Word.CONTROL)
        until(lambda: port.get(Word.CONTROL) > heard + 10, 5, "the router hears its neighbour")
        before = here.router.downs()
        with standing_still(here.router):
            time.sleep(SLOW_S)
        settled = port.get(Word.CONTROL)
        until(lambda: port.get(Word.CONTROL) > settled + 10, 5, "the router hears its neighbour again")
        after = here.router.downs()
        return {after[peer] - count for peer, count in before.items()}


@pytest.mark.skipif(not (FRR / "bfdd").exists(), reason="no FRR here")
@pytest.mark.parametrize(("patience", "lost"), [(0, {1}), (4, {0})])
@isolated()
def test_frr_waits_as_long_as_it_is_asked_to(patience: int, lost: set[int]) -> None:
    assert lost_by_a_slow_router(patience) == lost
