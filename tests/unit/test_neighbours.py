"""ARP and neighbour discovery against an independent encoder (scapy), and noise."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from scapy.all import ARP, Ether, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6

from controller_bridge.core import lldp, neighbours
from controller_bridge.core.neighbours import Said

ONE, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
ONE_RAW, OTHER_RAW = (bytes.fromhex(mac.replace(":", "")) for mac in (ONE, OTHER))
A4, B4, A6, B6 = map(ip_address, ("10.1.0.1", "10.1.0.2", "fd01::1", "fd01::2"))
NONE4, NONE6 = ip_address("0.0.0.0"), ip_address("::")


def arp(**fields: object) -> bytes:
    return bytes(Ether(src=ONE, dst="ff:ff:ff:ff:ff:ff") / ARP(**{"hwsrc": ONE} | fields))


def discovery(body: object, source: str = "fd01::1") -> bytes:
    return bytes(
        Ether(src=ONE, dst="33:33:ff:00:00:02") / IPv6(src=source, dst="ff02::1:ff00:2", hlim=255) / body
    )


READ = {
    "an ARP request": (arp(op=1, psrc="10.1.0.1", pdst="10.1.0.2"), Said(A4, B4, A4)),
    "a gratuitous one": (arp(op=1, psrc="10.1.0.1", pdst="10.1.0.1"), Said(A4, None, A4)),
    "a probe (RFC 5227)": (arp(op=1, psrc="0.0.0.0", pdst="10.1.0.2"), Said(None, B4, NONE4)),
    "an ARP reply": (arp(op=2, psrc="10.1.0.1", pdst="10.1.0.2"), Said(A4, None, A4)),
    "one that lies about its MAC address": (arp(op=2, hwsrc=OTHER, psrc="10.1.0.1", pdst="10.1.0.2"), None),
    "a solicitation": (discovery(ICMPv6ND_NS(tgt="fd01::2")), Said(A6, B6, A6)),
    "duplicate address detection": (
        discovery(ICMPv6ND_NS(tgt="fd01::2"), "::"),
        Said(None, B6, NONE6),
    ),
    "an advertisement": (discovery(ICMPv6ND_NA(tgt="fd01::1")), Said(A6, None, None)),
    "another protocol": (bytes(Ether(src=ONE, dst=OTHER, type=0x88B5) / bytes(60)), None),
}


def test_what_stations_say() -> None:
    for what, (frame, wanted) in READ.items():
        assert neighbours.read(frame) == wanted, what


def test_arp_answers_and_questions() -> None:
    answer = Ether(neighbours.answer(B4, OTHER_RAW, ONE_RAW, A4))
    assert (answer.dst, answer.src, answer[ARP].op) == (ONE, OTHER, 2)
    assert (answer[ARP].psrc, answer[ARP].hwsrc, answer[ARP].pdst, answer[ARP].hwdst) == (
        "10.1.0.2",
        OTHER,
        "10.1.0.1",
        ONE,
    )
    question = Ether(neighbours.question(B4, ONE_RAW, A4))
    assert (question.dst, question[ARP].op, question[ARP].psrc, question[ARP].pdst) == (
        "ff:ff:ff:ff:ff:ff",
        1,
        "10.1.0.1",
        "10.1.0.2",
    )


def sound(frame: bytes) -> Ether:
    """Its checksum is the one that scapy computes."""
    read = Ether(frame)
    again = read.copy()
    del again[2].cksum
    assert bytes(again) == frame
    return read


def test_discovery_answers_and_questions() -> None:
    answer = sound(neighbours.answer(B6, OTHER_RAW, ONE_RAW, A6))
    assert (answer.dst, answer[IPv6].src, answer[IPv6].dst, answer[IPv6].hlim) == (
        ONE,
        "fd01::2",
        "fd01::1",
        255,
    )
    assert (answer[ICMPv6ND_NA].tgt, answer[ICMPv6ND_NA].S, answer[ICMPv6ND_NA].O) == ("fd01::2", 1, 1)
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == OTHER
    nobody = sound(neighbours.answer(B6, OTHER_RAW, ONE_RAW, NONE6))
    assert (nobody.dst, nobody[IPv6].dst, nobody[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)
    question = sound(neighbours.question(B6, ONE_RAW, A6))
    assert (question.dst, question[IPv6].dst, question[ICMPv6ND_NS].tgt) == (
        "33:33:ff:00:00:02",
        "ff02::1:ff00:2",
        "fd01::2",
    )
    assert question[ICMPv6NDOptSrcLLAddr].lladdr == ONE


@given(st.binary(max_size=120), st.sampled_from([frame for frame, _ in READ.values()]), st.integers(0, 100))
def test_noise_is_read_or_not(noise: bytes, good: bytes, cut: int) -> None:
    for frame in (noise, good[:cut], good[:12] + noise, good[:14] + noise):
        neighbours.read(frame)
        neighbours.destination(frame)
        lldp.read(frame, b"k" * 32, 10.0)


def test_lldp_is_what_others_read_as_lldp() -> None:
    from scapy.contrib.lldp import LLDPDU, LLDPDUChassisID, LLDPDUPortID, LLDPDUTimeToLive

    frame = Ether(lldp.frame(lldp.Origin(0xABC, 7), b"k" * 32, 10.0))
    assert frame.dst == "01:80:c2:00:00:0e"
    assert LLDPDU in frame
    assert frame[LLDPDUChassisID].id == b"dpid:0000000000000abc"
    assert frame[LLDPDUPortID].id == b"7"
    assert frame[LLDPDUTimeToLive].ttl == 5
