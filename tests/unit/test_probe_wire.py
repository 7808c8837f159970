"""The Python half of the wire format against the layout that guest/responder.c documents."""

import struct

import pytest

from vmnet.probe import wire


def test_data_packet_of_a_64_byte_frame_is_exactly_its_header_over_ipv4():
    assert wire.payload_bytes(64, ipv6=False) == wire.DATA_LEN == 22
    assert wire.payload_bytes(1514, ipv6=False) == 1472
    assert wire.payload_bytes(84, ipv6=True) == wire.payload_bytes(64, ipv6=True) == 22


def test_data_layout():
    packet = wire.data(0x1122334455667788, 7, 30)
    assert packet[:10] == bytes.fromhex("5601 55667788 00000007")
    assert len(packet) == 30 and not any(packet[10:])


def test_control_layout_and_back():
    message = wire.control(wire.Type.START, 5, 1000, 64, 0)
    assert message == struct.pack("!BBHQIII", 0x56, 4, 1, 5, 1000, 64, 0)
    decoded = wire.decode_control(message)
    assert decoded and decoded.type is wire.Type.START and wire.words(decoded, 3) == (1000, 64, 0)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x56\x04",
        b"\x57" + wire.control(wire.Type.STOP, 1)[1:],
        b"\x56\x63" + wire.control(wire.Type.STOP, 1)[2:],
        b"\x56\x06\x00\x02" + bytes(8),
        wire.data(1, 1, 22),
    ],
)
def test_what_is_no_control_message_is_ignored(message):
    assert wire.decode_control(message) is None


def test_report():
    reply = wire.decode_control(wire.control(wire.Type.REPORT, 1, 10, 9, 2, 3, 11, 0, 1500, 1, 4))
    assert reply and wire.decode_report(reply) == wire.Report(10, 9, 2, 3, 11, 0, 1500, 1, 4)
    short = wire.decode_control(wire.control(wire.Type.REPORT, 1, 10, 9))
    assert short and wire.decode_report(short) is None


def test_ranges():
    reply = wire.decode_control(wire.control(wire.Type.RANGES, 1, wire.NONE, 2, 3, 4, 8, 8))
    assert reply and wire.decode_ranges(reply) == (wire.NONE, [(3, 4), (8, 8)])
    lying = wire.decode_control(wire.control(wire.Type.RANGES, 1, wire.NONE, 9, 3, 4))
    assert lying and wire.decode_ranges(lying) is None


def test_tcp_answers():
    assert wire.decode_tcp_answer(b"12 000000ff\n") == (12, 255)
    assert wire.decode_tcp_answer(b"12 000000ff") is None
    assert wire.decode_tcp_answer(b"12 xyz\n") is None
    assert wire.decode_tcp_trailer(b"VNETDONE" + struct.pack("!QI", 3, 4)) == (3, 4)
    assert wire.decode_tcp_trailer(b"VNETDONE") is None
