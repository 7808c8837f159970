"""Keepalives as scapy encodes them: what is repeated, what is not, and what the repeated frame says."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keepalive_frames import PEER, VM, bfd, ether, ip, ospf, vrrp
from scapy.contrib.bfd import BFD
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from dom0.router import packet
from dom0.router.bfd import parse_heard
from dom0.router.keepalive import understand
from dom0.router.session import Heard, Keepalive, Unanswerable, Why

POLL, FINAL, AUTHENTICATION, DEMAND, MULTIPOINT = 0x20, 0x10, 0x04, 0x02, 0x01
AT = {4: 14 + 20, 6: 14 + 40}


def kept(frame: bytes, mac: bytes = VM) -> Keepalive:
    found = understand(frame, mac)
    assert isinstance(found, Keepalive), found
    return found


def why(frame: bytes) -> Why:
    found = understand(frame, VM)
    assert isinstance(found, Unanswerable), found
    return found.why


@pytest.mark.parametrize("version", [4, 6])
@given(
    multiplier=st.integers(1, 255),
    desired=st.integers(0, 2**32 - 1),
    numbers=st.tuples(st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1)),
    flags=st.sampled_from([0, POLL, FINAL, 0x08]),
)
def test_a_control_packet_is_repeated_as_it_was(
    version: int, multiplier: int, desired: int, numbers: tuple[int, int], flags: int
) -> None:
    frame = bfd(
        version,
        detect_mult=multiplier,
        min_tx_interval=desired,
        my_discriminator=numbers[0],
        your_discriminator=numbers[1],
        flags=flags,
    )
    found = kept(frame)
    assert found.interval_s == desired / 1e6
    assert found.patience == multiplier
    assert found.number == numbers[0]
    assert found.changing == bool(flags & POLL)
    assert found.jitter == ((0.75, 0.9) if multiplier == 1 else (0.75, 1.0))
    # scapy, which computes the checksum itself, makes the same frame of what should have changed, and of that alone
    expected = Ether(frame)
    expected[BFD].flags = flags & ~(POLL | FINAL)
    expected[BFD].echo_rx_interval = 0
    del expected[UDP].chksum
    assert found.frame == bytes(expected)
    assert kept(found.frame).frame == found.frame


@pytest.mark.parametrize("version", [4, 6])
def test_a_checksum_left_to_the_device_is_completed(version: int) -> None:
    whole = bfd(version)
    read = packet.read(whole)
    assert read is not None
    partial = packet.ones_sum(read.source + read.destination + struct.pack("!HH", 32, 17))
    at = AT[version] + 6
    frame = whole[:at] + struct.pack("!H", partial) + whole[at + 2 :]
    assert kept(frame).frame == kept(whole).frame


def test_no_checksum_is_none_in_ipv4_and_wrong_in_ipv6() -> None:
    assert kept(bfd(4, udp={"chksum": 0})).frame[AT[4] + 6 : AT[4] + 8] == b"\0\0"
    assert why(bfd(6, udp={"chksum": 0})) is Why.MALFORMED


@pytest.mark.parametrize("version", [4, 6])
def test_wrong_checksums_are_not_made_right(version: int) -> None:
    assert why(bfd(version, udp={"chksum": 0x1234})) is Why.MALFORMED


def test_multihop_may_come_from_afar_single_hop_not() -> None:
    assert kept(bfd(port=4784, ttl=60)).key.instance == 4784
    assert understand(bfd(port=3784, ttl=254), VM) is None
    assert understand(bfd(port=3785), VM) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"flags": DEMAND}, Why.DEMAND),
        ({"flags": MULTIPOINT}, Why.MALFORMED),
        ({"flags": AUTHENTICATION}, Why.MALFORMED),
        ({"flags": AUTHENTICATION, "len": 26}, Why.AUTHENTICATED),
        ({"len": 48}, Why.MALFORMED),
        ({"version": 0}, Why.MALFORMED),
        ({"detect_mult": 0}, Why.MALFORMED),
        ({"my_discriminator": 0}, Why.MALFORMED),
        ({"your_discriminator": 0}, Why.MALFORMED),
        ({"sta": 0}, Why.NOT_UP),
        ({"sta": 1}, Why.NOT_UP),
        ({"sta": 2}, Why.NOT_UP),
    ],
    ids=str,
)
def test_what_is_not_repeated(fields: dict[str, int], expected: Why) -> None:
    assert why(bfd(**fields)) is expected


def test_only_the_vms_own_address_speaks() -> None:
    assert understand(bfd(), PEER) is None
    assert understand(bfd(back=True), VM) is None


def test_frames_of_other_shapes_are_none_of_ours() -> None:
    control = UDP(sport=49152, dport=3784) / BFD(sta=3, flags=0, len=24)
    frames = {
        "tagged": ether() / Dot1Q(vlan=7) / ip() / control,
        "fragment": ether() / IP(src="192.0.2.1", dst="192.0.2.2", ttl=255, flags="MF") / control,
        "options": ether() / IP(src="192.0.2.1", dst="192.0.2.2", ttl=255, options=b"\1\1\1\1") / control,
        "bad header sum": ether() / IP(src="192.0.2.1", dst="192.0.2.2", ttl=255, chksum=1) / control,
        "in IPv6 an extension": ether() / IPv6(nh=0, hlim=255) / bytes(8) / control,
        "udp length": ether() / ip() / UDP(sport=1, dport=3784, len=30) / BFD(sta=3),
    }
    for name, one in frames.items():
        assert understand(bytes(one), VM) is None, name
    for length in range(len(bfd())):
        assert understand(bfd()[:length], VM) is None, length


def test_what_follows_the_packet_is_cut_off() -> None:
    assert kept(bfd() + b"padding").frame == kept(bfd()).frame


@pytest.mark.parametrize("version", [4, 6])
def test_the_neighbour_names_the_vms_session(version: int) -> None:
    key = kept(bfd(version)).key
    assert parse_heard(bfd(version, back=True, min_rx_interval=300_000)) == Heard(key, 11, True, 0.3)
    down = parse_heard(bfd(version, back=True, sta=1))
    assert down is not None
    assert not down.up
    assert parse_heard(bfd(version, back=True, detect_mult=0)) is None
    assert parse_heard(vrrp()) is None


def test_vrrp_as_it_is_from_either_address() -> None:
    for frame, interval_s in ((vrrp(interval=25), 0.25), (vrrp(2, interval=3), 3.0)):
        found = kept(frame)
        assert found.frame == frame
        assert (found.interval_s, found.patience, found.jitter) == (interval_s, 3, (1, 1))
        virtual = frame[:6] + bytes.fromhex("00005e000107") + frame[12:]
        assert kept(virtual).frame == virtual
        other = frame[:6] + bytes.fromhex("00005e000108") + frame[12:]
        assert understand(other, VM) is None


def test_vrrp_that_ends_or_is_authenticated() -> None:
    assert why(vrrp(priority=0)) is Why.NOT_UP
    assert why(vrrp(interval=0)) is Why.MALFORMED
    assert why(vrrp(2, interval=1, authtype=2)) is Why.AUTHENTICATED


@pytest.mark.parametrize("version", [2, 3])
def test_ospf_hellos(version: int) -> None:
    frame = ospf(version, interval=2, dead=8)
    found = kept(frame)
    assert found.frame == frame
    assert (found.interval_s, found.patience) == (2.0, 4.0)
    fast = kept(ospf(version, interval=0, dead=1))
    assert (fast.interval_s, fast.patience) == (0.25, 4.0)
    assert why(ospf(version, interval=0, dead=0)) is Why.MALFORMED
    assert why(ospf(version, interval=5, dead=4)) is Why.MALFORMED
    assert why(ospf(version, len=2000)) is Why.MALFORMED
    assert why(ospf(version, alone=True)) is Why.NOT_UP


def test_ospf_with_a_password_but_not_with_a_sequence() -> None:
    assert kept(ospf(authtype=1, authdata=0x6162)).interval_s == 1
    assert why(ospf(authtype=2)) is Why.AUTHENTICATED
    assert why(ospf(chksum=7)) is Why.MALFORMED
