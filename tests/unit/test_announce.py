"""Our announcements, read by scapy; and the same announcements written by scapy."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from dom0.dataplane import announce

MAC = bytes.fromhex("525400abcdef")
TEXT = "52:54:00:ab:cd:ef"


def test_rarp() -> None:
    frame = Ether(announce.rarp(MAC))
    assert (frame.dst, frame.src, frame.type) == ("ff:ff:ff:ff:ff:ff", TEXT, 0x8035)
    arp = frame.payload if isinstance(frame.payload, ARP) else ARP(bytes(frame.payload))
    assert (arp.op, arp.hwsrc, arp.hwdst, arp.psrc, arp.pdst) == (3, TEXT, TEXT, "0.0.0.0", "0.0.0.0")


def test_a_frame_for_one_switch_alone() -> None:
    frame = Ether(announce.here_only(MAC))
    assert (frame.dst, frame.src, frame.type) == (TEXT, TEXT, 0x88B5)
    nobody = "02:00:00:00:00:07"
    first, second = (Ether(one) for one in announce.here_afresh(MAC, bytes.fromhex(nobody.replace(":", ""))))
    assert (first.dst, first.src, first.type) == (nobody, nobody, 0x88B5)
    assert (second.dst, second.src, second.type) == (nobody, TEXT, 0x88B5)


@given(st.ip_addresses(v=4))
def test_gratuitous_arp(address: IPv4Address) -> None:
    ours = announce.gratuitous_arp(MAC, address)
    theirs = Ether(dst="ff:ff:ff:ff:ff:ff", src=TEXT) / ARP(
        op=1, hwsrc=TEXT, psrc=str(address), hwdst="00:00:00:00:00:00", pdst=str(address)
    )
    assert ours == bytes(theirs).ljust(60, b"\0")


@given(st.ip_addresses(v=6))
def test_neighbour_advertisement_with_its_checksum(address: IPv6Address) -> None:
    ours = announce.advertisement(MAC, address)
    theirs = (
        Ether(dst="33:33:00:00:00:01", src=TEXT)
        / IPv6(src=str(address), dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(R=0, S=0, O=1, tgt=str(address))
        / ICMPv6NDOptDstLLAddr(lladdr=TEXT)
    )
    assert ours == bytes(theirs)


@given(st.ip_addresses(v=6))
def test_neighbour_solicitation_to_one_with_its_checksum(address: IPv6Address) -> None:
    ours = announce.solicitation(MAC, bytes.fromhex("020000000007"), address)
    theirs = (
        Ether(dst="02:00:00:00:00:07", src=TEXT)
        / IPv6(src="fe80::5054:ff:feab:cdef", dst=str(address), hlim=255)
        / ICMPv6ND_NS(tgt=str(address))
        / ICMPv6NDOptSrcLLAddr(lladdr=TEXT)
    )
    assert ours == bytes(theirs)


@given(st.binary(min_size=6, max_size=6), st.lists(st.ip_addresses(), max_size=8))
def test_one_frame_an_address_and_the_switches_first(
    mac: bytes, addresses: list[IPv4Address | IPv6Address]
) -> None:
    frames = announce.announcements(mac, addresses)
    assert [Ether(one).type for one in frames] == [0x8035] + [
        0x0806 if one.version == 4 else 0x86DD for one in addresses
    ]
    assert all(one[6:12] == mac and one[0] & 1 and len(one) >= 60 for one in frames)


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1"])
def test_our_own_announcement_teaches_the_address_it_announces(text: str) -> None:
    from dom0.dataplane.addresses import source_address

    address = ip_address(text)
    frame = announce.announcements(MAC, [address])[1]
    assert source_address(frame, MAC) == address
