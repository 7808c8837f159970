"""What a gateway's address answers, by scapy's reckoning; and damaged packets, which get none."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from controller_bridge.core import gateway

OWN = frozenset({ip_address("10.1.0.254"), ip_address("fd01::fe")})
MAC, ASKER = bytes.fromhex("02766d677701"), bytes.fromhex("020000000001")
PING4 = IP(src="10.1.0.1", dst="10.1.0.254") / ICMP(id=7, seq=3) / Raw(b"x" * 56)
PING6 = IPv6(src="fd01::1", dst="fd01::fe") / ICMPv6EchoRequest(id=7, seq=3, data=b"x" * 56)
TRACE4 = IP(src="10.1.0.1", dst="10.1.0.254", ttl=1) / UDP(sport=40000, dport=33434) / Raw(b"y" * 18)
TRACE6 = IPv6(src="fd01::1", dst="fd01::fe", hlim=1) / UDP(sport=40000, dport=33434) / Raw(b"y" * 18)


def ask(packet: Packet) -> bytes | None:
    return gateway.answer(bytes(Ether(src=ASKER, dst=MAC) / packet), OWN, MAC)


def answered(packet: Packet) -> Any:
    """Parsed, and its checksums are what scapy makes of it."""
    said = ask(packet)
    assert said is not None
    assert said[:12] == ASKER + MAC and len(said) >= 60
    parsed = Ether(said)
    again = Ether(said)
    for layer in (IP, ICMP, ICMPv6EchoReply, ICMPv6DestUnreach):
        if layer in again:
            del again[layer].fields["chksum" if layer in (IP, ICMP) else "cksum"]
    assert bytes(again) == said
    return parsed


def test_ping() -> None:
    four = answered(PING4)
    assert (four[IP].src, four[IP].dst, four[ICMP].type, four[ICMP].id, four[ICMP].seq) == (
        "10.1.0.254",
        "10.1.0.1",
        0,
        7,
        3,
    )
    assert bytes(four[Raw]) == b"x" * 56
    six = answered(PING6)
    assert (six[IPv6].src, six[IPv6].dst) == ("fd01::fe", "fd01::1")
    assert (six[ICMPv6EchoReply].id, six[ICMPv6EchoReply].seq, six[ICMPv6EchoReply].data) == (7, 3, b"x" * 56)


def test_ping_of_an_odd_size_and_a_full_frame() -> None:
    for size in (0, 1, 1472):
        said = answered(IP(src="10.1.0.1", dst="10.1.0.254") / ICMP() / Raw(b"z" * size))
        assert said[IP].len == 28 + size


def test_a_ping_with_options_in_its_header() -> None:
    assert answered(IP(src="10.1.0.1", dst="10.1.0.254", options=[("NOP")] * 4) / ICMP())[IP].ihl == 5


def test_traceroute_finds_no_program_at_the_port() -> None:
    four = answered(TRACE4)
    assert (four[ICMP].type, four[ICMP].code) == (3, 3)
    assert (four[IPerror].dst, four[UDPerror].sport, four[UDPerror].dport) == ("10.1.0.254", 40000, 33434)
    six = answered(TRACE6)
    assert (six[ICMPv6DestUnreach].code, six[UDPerror].dport) == (4, 33434)


def test_an_error_has_the_size_that_everybody_takes() -> None:
    large = Raw(b"y" * 1400)
    assert answered(TRACE4 / large)[IP].len == 576
    assert answered(TRACE6 / large)[IPv6].plen == 1240


@pytest.mark.parametrize(
    "packet",
    [
        IP(src="10.1.0.1", dst="10.1.0.254") / ICMP(type=0),
        IP(src="10.1.0.1", dst="10.1.0.254") / ICMP(type=3, code=3) / PING4,
        IP(src="10.1.0.1", dst="10.1.0.254") / TCP(dport=80),
        IP(src="10.1.0.1", dst="10.1.0.9") / ICMP(),
        IP(src="10.1.0.1", dst="10.1.0.254", flags="MF") / ICMP(),
        IP(src="10.1.0.1", dst="10.1.0.254", frag=3) / UDP(),
        *(
            IP(src=one, dst="10.1.0.254") / UDP()
            for one in ("0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1")
        ),
        IP(src="10.1.0.254", dst="10.1.0.254") / UDP(),
        *(IPv6(src=one, dst="fd01::fe") / UDP() for one in ("::", "ff02::1", "::1", "fd01::fe")),
        IPv6(src="fd01::1", dst="fd01::fe") / ICMPv6EchoReply(),
    ],
)
def test_what_is_not_answered(packet: Packet) -> None:
    assert ask(packet) is None


@given(st.sampled_from([PING4, PING6, TRACE4, TRACE6]), st.data())
def test_damaged(packet: Packet, data: st.DataObject) -> None:
    """Cut off or with a byte changed: no answer, or one that is well formed and goes to who sent the frame."""
    whole = bytearray(bytes(Ether(src=ASKER, dst=MAC) / packet))
    at = data.draw(st.integers(12, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    cut = whole[: data.draw(st.integers(12, len(whole)))]
    for frame in (bytes(whole), bytes(cut)):
        said = gateway.answer(frame, OWN, MAC)
        if said is not None:
            assert said[:12] == ASKER + MAC and len(said) <= max(1294, len(frame))


@given(st.integers(14, 14 + 27), st.integers(1, 255))
def test_a_damaged_ping_gets_none(at: int, by: int) -> None:
    """All of its bytes are under a checksum: IPv4's header and the ICMP message."""
    whole = bytearray(bytes(Ether(src=ASKER, dst=MAC) / PING4))
    whole[at] ^= by
    assert gateway.answer(bytes(whole), OWN, MAC) is None
