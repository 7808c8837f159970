"""Which address a frame teaches us, on frames that scapy wrote."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from dom0.dataplane.addresses import source_address

TEXT, OTHER = "52:54:00:ab:cd:ef", "52:54:00:00:00:99"
MAC = bytes.fromhex("525400abcdef")
PAD = b"x" * 40


def ether(source: str = TEXT) -> Packet:
    return Ether(src=source, dst="ff:ff:ff:ff:ff:ff")


@pytest.mark.parametrize(
    ("frame", "address"),
    [
        (ether() / ARP(op=1, hwsrc=TEXT, psrc="192.0.2.1", pdst="192.0.2.9"), "192.0.2.1"),
        (ether() / ARP(op=2, hwsrc=TEXT, psrc="192.0.2.1", pdst="192.0.2.9"), "192.0.2.1"),
        (ether() / IP(src="192.0.2.1", dst="192.0.2.9") / UDP() / PAD, "192.0.2.1"),
        (ether() / IP(src="192.0.2.1", dst="224.0.0.5") / ICMP() / PAD, "192.0.2.1"),
        (ether() / IPv6(src="2001:db8::1", dst="ff02::1") / ICMPv6ND_NS(), "2001:db8::1"),
        (ether() / IPv6(src="fe80::1", dst="fe80::2") / UDP() / PAD, "fe80::1"),
        # duplicate address detection: not its own yet
        (ether() / ARP(op=1, hwsrc=TEXT, psrc="0.0.0.0", pdst="192.0.2.1"), None),
        (ether() / IPv6(src="::", dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt="2001:db8::1"), None),
        # somebody else's
        (ether(OTHER) / ARP(op=1, hwsrc=OTHER, psrc="192.0.2.1", pdst="192.0.2.9"), None),
        (ether() / ARP(op=2, hwsrc=OTHER, psrc="192.0.2.1", pdst="192.0.2.9"), None),
        (ether() / IP(src="224.0.0.1", dst="192.0.2.9") / UDP() / PAD, None),
        (ether() / IP(src="255.255.255.255", dst="192.0.2.9") / UDP() / PAD, None),
        (ether() / IP(src="127.0.0.1", dst="192.0.2.9") / UDP() / PAD, None),
        (ether() / Dot1Q(vlan=5) / IP(src="192.0.2.1", dst="192.0.2.9") / UDP() / PAD, None),
    ],
)
def test_frames(frame: Packet, address: str | None) -> None:
    raw = bytes(frame).ljust(60, b"\0")
    assert source_address(raw, MAC) == (None if address is None else ip_address(address))


def test_a_short_frame_teaches_nothing() -> None:
    whole = bytes(ether() / ARP(op=1, hwsrc=TEXT, psrc="192.0.2.1", pdst="192.0.2.9"))
    assert len(whole) == 42
    for length in range(42):
        assert source_address(whole[:length], MAC) is None


@given(st.sampled_from((0x0800, 0x0806, 0x86DD)), st.binary(min_size=28, max_size=60))
def test_an_address_is_one_that_can_be_announced(ethertype: int, rest: bytes) -> None:
    found = source_address(b"\xff" * 6 + MAC + ethertype.to_bytes(2, "big") + rest, MAC)
    assert found is None or not (found.is_multicast or found.is_unspecified or found.is_loopback)
