"""What is answered in the name of a guest that stands still; whatever is asked, nothing else is."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from dom0.dataplane.neighbour_answers import answer

GUEST, ASKER = "52:54:00:00:00:01", "52:54:00:00:00:99"
MAC = bytes.fromhex(GUEST.replace(":", ""))
ADDRESSES = (IPv4Address("10.0.0.10"), IPv6Address("fd01::10"))
GROUP = {"dst": "33:33:ff:00:00:10", "src": ASKER}


def arp(**fields: object) -> Packet:
    usual = {"op": 1, "hwsrc": ASKER, "psrc": "10.0.0.100", "pdst": "10.0.0.10"}
    return Ether(dst=GUEST, src=ASKER) / ARP(**(usual | fields))


def solicitation(target: str = "fd01::10", source: str = "fd01::100", hops: int = 255) -> Packet:
    head = Ether(**GROUP) / IPv6(src=source, dst="ff02::1:ff00:10", hlim=hops)
    return head / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=ASKER)


def answered(question: Packet) -> Packet | None:
    found = answer(bytes(question), MAC, ADDRESSES)
    return None if found is None else Ether(found)


def test_arp() -> None:
    found = answered(arp())
    assert found is not None
    assert (found.dst, found.src, len(found)) == (ASKER, GUEST, 60)
    reply = found[ARP]
    assert (reply.op, reply.hwsrc, reply.psrc) == (2, GUEST, "10.0.0.10")
    assert (reply.hwdst, reply.pdst) == (ASKER, "10.0.0.100")


def test_who_checks_whether_the_address_is_free_hears_that_it_is_not() -> None:
    """RFC 5227, section 2.1; RFC 4862, section 5.4.3."""
    assert answered(arp(psrc="0.0.0.0")) is not None
    found = answered(solicitation(source="::"))
    assert found is not None
    assert (found.dst, found[IPv6].dst, found[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)


def test_neighbour_solicitation() -> None:
    found = answered(solicitation())
    assert found is not None
    assert (found.dst, found.src) == (ASKER, GUEST)
    packet = found[IPv6]
    assert (packet.src, packet.dst, packet.hlim) == ("fd01::10", "fd01::100", 255)
    said = found[ICMPv6ND_NA]
    assert (said.tgt, said.R, said.S, said.O) == ("fd01::10", 1, 1, 1)
    assert found[ICMPv6NDOptDstLLAddr].lladdr == GUEST
    checksum = said.cksum
    del said.cksum
    assert Ether(bytes(found))[ICMPv6ND_NA].cksum == checksum


@pytest.mark.parametrize(
    "question",
    [
        arp(pdst="10.0.0.11"),
        arp(op=2),
        arp(psrc="10.0.0.10"),
        arp(hwsrc=GUEST),
        arp(hwsrc="ff:ff:ff:ff:ff:ff"),
        arp(hwlen=8),
        Ether(dst=GUEST, src=ASKER)
        / Dot1Q(vlan=7)
        / ARP(op=1, hwsrc=ASKER, psrc="10.0.0.100", pdst="10.0.0.10"),
        solicitation(target="fd01::11"),
        solicitation(hops=64),
        solicitation(source="ff02::1"),
        Ether(**GROUP) / IPv6(src="fd01::100", hlim=255) / ICMPv6ND_RS() / bytes(60),
    ],
    ids=lambda one: one.summary(),
)
def test_nothing_is_answered(question: Packet) -> None:
    assert answered(question) is None


@given(st.sampled_from([bytes(arp()), bytes(solicitation())]), st.data())
def test_a_damaged_question_gets_the_guests_answer_or_none(question: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(question) - 1))
    damaged = (
        question[:at] + data.draw(st.binary(max_size=4)) + question[at + 1 : data.draw(st.integers(at, 90))]
    )
    found = answer(damaged, MAC, ADDRESSES)
    assert found is None or found[6:12] == MAC
