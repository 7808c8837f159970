"""Frames that set up flows: like a packet or its answer to a switch, and nothing to a station."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.setup_frame import MOST, SOURCE, setup_frames
from vmnet.internet_checksum import checksum
from vmnet.undeliverable import frame_like, reply_like

GUEST, SENDER, BRIDGE = (
    bytes.fromhex("525400000001"),
    bytes.fromhex("525400000100"),
    bytes.fromhex("02766d000001"),
)
V4 = bytes.fromhex("45000054 1234 4000 40 11 0000 0a000064 0a00000a 1b5f 1b60") + bytes(60)
V6 = (
    bytes.fromhex("60012345 0010 06 40")
    + b"\xfd"
    + bytes(14)
    + b"\x64"
    + b"\xfd"
    + bytes(14)
    + b"\x0a"
    + b"\x12\x34\x00\x50"
    + bytes(40)
)


def header(ether_type: int, packet: bytes, tag: bytes = b"") -> bytes:
    return (GUEST + SENDER + tag + struct.pack("!H", ether_type) + packet)[:96]


def test_an_ipv4_reply_has_the_addresses_and_ports_of_an_answer():
    frame = reply_like(header(0x0800, V4), BRIDGE, 0)
    assert (frame[:6], frame[6:12], frame[12:14], len(frame)) == (SENDER, BRIDGE, b"\x08\x00", 60)
    packet = frame[14:]
    assert (packet[9], packet[12:16], packet[16:20]) == (17, bytes([10, 0, 0, 10]), bytes([10, 0, 0, 100]))
    assert packet[20:24] == bytes.fromhex("1b601b5f")
    assert struct.unpack_from("!H", packet, 2)[0] == 24, "a switch compares the length with the frame's"


def test_no_station_takes_an_ipv4_reply():
    packet = reply_like(header(0x0800, V4), BRIDGE, 0)[14:]
    assert checksum(packet[:20]) != 0


def test_an_ipv6_reply_comes_from_nowhere_and_goes_no_further():
    packet = reply_like(header(0x86DD, V6), BRIDGE, 0)[14:]
    assert (packet[6], packet[7], packet[8:24], packet[24:40]) == (6, 0, bytes(16), V6[8:24])
    assert packet[40:44] == bytes.fromhex("00501234")


def test_the_tag_is_that_of_the_way():
    tagged = header(0x0800, V4, bytes.fromhex("8100 0007"))
    assert reply_like(tagged, BRIDGE, 0)[12:14] == b"\x08\x00"
    assert reply_like(tagged, BRIDGE, 9)[12:18] == bytes.fromhex("8100 0009 0800")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        GUEST + SENDER,
        header(0x0806, bytes(46)),
        header(0x0800, V4[:19]),
        header(0x0800, b"\x65" + V4[1:]),
        header(0x86DD, V6[:39]),
        header(0x86DD, V6[:6] + b"\x3a" + V6[7:]),
    ],
)
def test_nothing_answers_what_is_no_packet_or_neighbour_discovery(bad):
    assert reply_like(bad, BRIDGE, 0) is None


def test_a_frame_like_a_packet_has_its_addresses_and_ports():
    frame = frame_like(header(0x0800, V4), GUEST, BRIDGE, 0)
    assert (frame[:6], frame[6:12], frame[23], frame[26:38]) == (GUEST, BRIDGE, 17, V4[12:24])
    frame = frame_like(header(0x86DD, V6), GUEST, BRIDGE, 7)
    assert frame[12:18] == bytes.fromhex("8100 0007 86dd")
    packet = frame[18:]
    assert (packet[6], packet[7], packet[8:24], packet[24:44]) == (6, 0, bytes(16), V6[24:44])


def test_the_fabrics_frames_are_to_the_vm_and_bounded():
    headers = [header(0x0800, V4[:20] + struct.pack("!HH", port, 7)) for port in range(100)]
    frames = setup_frames([header(0x0806, bytes(46)), *headers, *headers])
    assert len(frames) == MOST
    assert {(one[:6], one[6:12]) for one in frames} == {(GUEST, SOURCE)}


@given(st.binary(max_size=96), st.integers(0, 4094))
def test_a_hostile_header_makes_no_packet_that_a_station_takes(raw, vlan):
    frame = frame_like(raw, GUEST, BRIDGE, vlan)
    if frame is None:
        return
    assert 60 <= len(frame) <= 96 and frame[:12] == GUEST + BRIDGE
    packet = frame[18 if vlan else 14 :]
    assert checksum(packet[:20]) != 0 if packet[0] >> 4 == 4 else packet[8:24] == bytes(16)


@given(st.binary(max_size=96), st.integers(0, 4094))
def test_a_hostile_header_makes_no_frame_that_a_station_takes(raw, vlan):
    frame = reply_like(raw, BRIDGE, vlan)
    if frame is None:
        return
    assert 60 <= len(frame) <= 96 and frame[6:12] == BRIDGE
    packet = frame[18 if vlan else 14 :]
    assert checksum(packet[:20]) != 0 if packet[0] >> 4 == 4 else packet[8:24] == bytes(16)
