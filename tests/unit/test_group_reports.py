"""Multicast memberships: the questions as scapy reads them, and which of a guest's frames, or a peer's, are reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.igmp import IGMP
from scapy.contrib.igmpv3 import IGMPv3, IGMPv3gr, IGMPv3mq, IGMPv3mr
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLDone,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from dom0.dataplane.group_reports import LONGEST_REPORT_BYTES, general_queries, is_report
from dom0.guest_announcements import GuestAnnouncements, reports

MAC, ASKER = bytes.fromhex("525400000001"), bytes.fromhex("020000000007")
GROUP, GROUP6 = "239.1.2.3", "ff05::123"


def igmp(body: Packet, to: str = GROUP) -> Packet:
    return Ether(src=MAC, dst="01:00:5e:01:02:03") / IP(src="10.0.0.10", dst=to, ttl=1) / body


def mld(body: Packet) -> Packet:
    alert = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    return Ether(src=MAC, dst="33:33:00:00:01:23") / IPv6(src="fe80::1", dst=GROUP6, hlim=1) / alert / body


REPORTS = {
    "IGMPv1": igmp(IGMP(type=0x12, gaddr=GROUP)),
    "IGMPv2": igmp(IGMP(type=0x16, gaddr=GROUP)),
    "IGMP leave": igmp(IGMP(type=0x17, gaddr=GROUP), "224.0.0.2"),
    "IGMPv3": igmp(IGMPv3(type=0x22) / IGMPv3mr(records=[IGMPv3gr(rtype=4, maddr=GROUP)]), "224.0.0.22"),
    "MLDv1": mld(ICMPv6MLReport(mladdr=GROUP6)),
    "MLD done": mld(ICMPv6MLDone(mladdr=GROUP6)),
    "MLDv2": mld(ICMPv6MLReport2()),
}
OTHERS = {
    "an IGMP query": igmp(IGMP(type=0x11, gaddr="0.0.0.0"), "224.0.0.1"),
    "an MLD query": mld(ICMPv6MLQuery2()),
    "UDP to the group": igmp(UDP(dport=7) / (b"\x22" * 20)),
    "an advertisement": mld(ICMPv6ND_NA()),
    "ARP": Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(),
    "a report to one station": Ether(src=MAC, dst="02:00:00:00:00:09") / REPORTS["IGMPv2"].payload,
    "a report from another": Ether(src="52:54:00:00:00:02", dst="01:00:5e:01:02:03")
    / REPORTS["IGMPv2"].payload,
    "a report to an address": igmp(IGMP(type=0x16, gaddr=GROUP), "10.0.0.1"),
    "tagged": Ether(src=MAC, dst="01:00:5e:01:02:03", type=0x8100)
    / (b"\0\7\x08\0" + bytes(REPORTS["IGMPv2"])[14:]),
}


def frame_of(packet: Packet) -> bytes:
    return bytes(packet).ljust(60, b"\0")


@pytest.mark.parametrize("packet", REPORTS.values(), ids=REPORTS)
def test_a_report(packet: Packet) -> None:
    assert is_report(frame_of(packet), MAC)


@pytest.mark.parametrize("packet", OTHERS.values(), ids=OTHERS)
def test_no_report(packet: Packet) -> None:
    assert not is_report(frame_of(packet), MAC)


@given(st.sampled_from(sorted(REPORTS)), st.integers(0, 80), st.binary(max_size=6))
def test_a_damaged_one_is_a_report_of_the_guest_or_none(kind: str, at: int, change: bytes) -> None:
    frame = frame_of(REPORTS[kind])
    changed = frame[:at] + change + frame[at + len(change) :]
    for one in (changed, changed[:at], b""):
        if is_report(one, MAC):
            assert one[6:12] == MAC
            assert one[12:14] in (b"\x08\x00", b"\x86\xdd")
            assert one[0] & 1


def test_the_questions() -> None:
    first, second = (Ether(one) for one in general_queries(ASKER))
    assert (first.dst, first[IP].src, first[IP].dst, first[IP].ttl) == (
        *("01:00:5e:00:00:01", "0.0.0.0", "224.0.0.1"),
        1,
    )
    asked = first[IP].payload if isinstance(first[IP].payload, IGMPv3) else IGMPv3(bytes(first[IP].payload))
    assert (asked.type, asked[IGMPv3mq].gaddr, asked[IGMPv3mq].numsrc) == (0x11, "0.0.0.0", 0)
    written = first.copy()
    del written[IP].chksum
    assert Ether(bytes(written))[IP].chksum == first[IP].chksum
    assert (second.dst, second[IPv6].src, second[IPv6].dst, second[IPv6].hlim) == (
        *("33:33:00:00:00:01", "fe80::ff:fe00:7", "ff02::1"),
        1,
    )
    query = second[ICMPv6MLQuery2]
    written = second.copy()
    del written[ICMPv6MLQuery2].cksum
    assert Ether(bytes(written))[ICMPv6MLQuery2].cksum == query.cksum
    assert (query.mladdr, query.mrd) == ("::", 100)


def test_what_a_peer_says_is_checked_and_bounded() -> None:
    good = frame_of(REPORTS["MLDv2"]).hex()
    bad: list[object] = [
        None,
        7,
        "x",
        "0",
        frame_of(OTHERS["ARP"]).hex(),
        "00" * (LONGEST_REPORT_BYTES + 1),
        [good],
    ]
    assert reports([*bad, good], MAC) == [bytes.fromhex(good)]
    assert len(reports([good] * 1000, MAC)) == 64
    assert reports({"0": good}, MAC) == []


@given(
    st.dictionaries(st.sampled_from(("addresses", "stations", "reports")), st.none() | st.lists(st.text()))
)
def test_whatever_a_peer_says_the_guest_itself_is_announced(message: dict[str, object]) -> None:
    said = GuestAnnouncements([MAC])
    before = said.own(MAC)
    said.note(message)
    assert (said.own(MAC), said.others(MAC)) == (before, [])
    said.note({key: {MAC.hex(":"): value} for key, value in message.items()})
    assert said.own(MAC)[0] == before[0]
