"""Whom a guest speaks with, counted on a real tap against frames whose number and size are known."""

from __future__ import annotations

import os
import threading
from ipaddress import ip_address

import pytest
from dataplane_kit import CLIENT, GUEST, Guest, Host, Packets, Tap, isolated
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from dom0.dataplane.traffic_counter import TrafficCounter
from dom0.dataplane.traffic_program import MOST_ADDRESSES, Counted

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
GATEWAY = bytes.fromhex("02766d677701")
VM4, VM6 = "10.1.0.10", "fd01::10"


class Scene:
    """``to``: the host hands a frame to the guest; ``sends``: the guest sends one. The guest reads what it gets."""

    def __init__(self, most: int = MOST_ADDRESSES) -> None:
        self.host = Host()
        with self.host:
            self.tap = Tap("tap0")
            self.guest = Guest(self.tap)
            self._packets = Packets("tap0")
            self.counter = TrafficCounter({"tap0": GUEST}, most)

    def to(self, packet: Ether, times: int = 1) -> int:
        return self._each(self._packets.send, packet, times)

    def sends(self, packet: Ether, times: int = 1) -> int:
        return self._each(self.tap.write, packet, times)

    @staticmethod
    def _each(send: object, packet: Ether, times: int) -> int:
        raw = bytes(packet)
        for _ in range(times):
            send(raw)  # type: ignore[operator]
        return len(raw) * times

    def counted(self) -> dict[object, int]:
        return {one.address: one.bytes for one in self.counter.read() if one.bytes}


def to_guest(source: str, mac: bytes = CLIENT) -> Ether:
    return Ether(src=mac, dst=GUEST)/IP(src=source, dst=VM4)/UDP(sport=1, dport=2)/bytes(100)  # fmt: skip


def from_guest(destination: str, mac: bytes = CLIENT) -> Ether:
    return Ether(src=GUEST, dst=mac)/IP(src=VM4, dst=destination)/UDP(sport=2, dport=1)/bytes(400)  # fmt: skip


@isolated()
def test_bytes_of_each_address_both_ways_to_the_byte() -> None:
    scene = Scene()
    near = scene.to(to_guest("10.1.0.1"), 300) + scene.sends(from_guest("10.1.0.1"), 200)
    far = scene.to(to_guest("10.2.0.2", GATEWAY), 10) + scene.sends(from_guest("10.2.0.2", GATEWAY), 20)
    six = Ether(src=CLIENT, dst=GUEST) / IPv6(src="fd01::1", dst=VM6) / UDP() / bytes(64)
    back = Ether(src=GUEST, dst=CLIENT) / IPv6(src=VM6, dst="fd01::1") / ICMPv6EchoRequest()
    sixth = scene.to(six, 7) + scene.sends(back, 3)
    tagged = Ether(src=GUEST, dst=CLIENT) / Dot1Q(vlan=5) / IP(src=VM4, dst="10.5.0.5") / ICMP() / bytes(60)
    fifth = scene.sends(tagged, 4)
    answer = Ether(src=CLIENT, dst=GUEST) / Dot1Q(vlan=5) / IP(src="10.5.0.5", dst=VM4) / ICMP() / bytes(60)
    fifth += scene.to(answer, 4)
    other = Ether(src=GUEST, dst=CLIENT, type=0x88B6) / bytes(60)
    plain = scene.sends(other, 5)
    assert scene.counted() == {
        ip_address("10.1.0.1"): near,
        ip_address("10.2.0.2"): far,
        ip_address("fd01::1"): sixth,
        ip_address("10.5.0.5"): fifth,
        CLIENT: plain,
    }
    found = scene.counter.read()
    assert [one.bytes for one in found] == sorted((one.bytes for one in found), reverse=True)
    macs = {one.address: one.mac for one in found}
    assert macs[ip_address("10.1.0.1")] == CLIENT
    assert macs[ip_address("10.2.0.2")] == GATEWAY, "of the fabric's gateway, the address tells who it is"


@isolated()
def test_what_is_no_conversation_is_left_out() -> None:
    scene = Scene()
    scene.to(Ether(src=CLIENT, dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=VM4))
    scene.to(Ether(src=GATEWAY, dst=GUEST) / ARP(op=2, psrc="10.1.0.254", pdst=VM4))
    scene.sends(Ether(src=GUEST, dst=GATEWAY) / ARP(op=1, psrc=VM4, pdst="10.1.0.254"))
    scene.to(
        Ether(src=GATEWAY, dst=GUEST)
        / IPv6(src="fd01::fe", dst=VM6)
        / ICMPv6ND_NS(tgt=VM6)
        / ICMPv6NDOptSrcLLAddr()
    )
    scene.sends(Ether(src=GUEST, dst="01:00:5e:00:00:05") / IP(src=VM4, dst="224.0.0.5") / bytes(80))
    scene.to(Ether(src=CLIENT, dst="52:54:00:00:00:77") / IP(src="10.1.0.1", dst="10.1.0.77") / UDP())
    scene.sends(Ether(src="52:54:00:00:00:78", dst=CLIENT) / IP(src="10.1.0.78", dst="10.1.0.1") / UDP())
    scene.sends(Ether(bytes(Ether(src=GUEST, dst=CLIENT, type=0x0800)) + b"\x45"))
    assert scene.counted() == {}
    size = scene.to(to_guest("10.1.0.1"))
    assert scene.counted() == {ip_address("10.1.0.1"): size}


@isolated()
def test_a_guest_that_speaks_with_everybody_fills_no_memory() -> None:
    scene = Scene(most=64)
    known = scene.to(to_guest("10.1.0.1"), 10)
    sizes = sum(scene.sends(from_guest(str(ip_address(0x0B000000 + n)))) for n in range(5000))
    known += scene.to(to_guest("10.1.0.1"), 10)
    found = {one.address: one.bytes for one in scene.counter.read()}
    assert len(found) == 65
    assert found[ip_address("10.1.0.1")] == known, "who was there before is still told apart"
    assert sum(found.values()) == known + sizes, "and nothing is uncounted"
    assert found[None] == sum(found.values()) - known - 63 * len(bytes(from_guest("11.0.0.0")))


@isolated()
def test_many_processors_at_once_lose_no_byte() -> None:
    scene = Scene()
    raw = [bytes(to_guest(f"10.1.0.{n}")) for n in range(1, 5)]
    with scene.host:
        senders = [Packets("tap0") for _ in range(4)]

    def run(sender: Packets) -> None:
        for _ in range(2000):
            for one in raw:
                sender.send(one)

    threads = [threading.Thread(target=run, args=(one,)) for one in senders]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    scene.guest.stop()
    assert scene.counted() == {ip_address(f"10.1.0.{n}"): 8000 * len(raw[0]) for n in range(1, 5)}


@isolated()
def test_it_ends_with_its_sockets_and_needs_its_taps() -> None:
    scene = Scene()
    scene.counter.close()
    scene.counter.close()
    with scene.host, pytest.raises(OSError, match="No such device"):
        TrafficCounter({"tap0": GUEST, "nowhere": GUEST})
    with scene.host:
        counter = TrafficCounter({"tap0": GUEST})
    scene.to(to_guest("10.1.0.1"))
    assert [type(one) for one in counter.read()] == [Counted, Counted]
