"""What of a frame says to which flow it belongs."""

import struct

import pytest

from dom0.dataplane.flow_key import flow_key

GUEST, CLIENT, OTHER = (bytes.fromhex(f"5254000000{one}") for one in ("01", "99", "98"))
TAG = bytes.fromhex("81000007")


def ipv4(
    protocol: int = 17, ports: tuple[int, int] = (7, 8), fragment: int = 0, ttl: int = 64, source: int = 1
) -> bytes:
    head = struct.pack(
        "!BBHHHBBH4B4B", 0x45, 0, 40, 1, fragment, ttl, protocol, 0, 10, 0, 0, source, 10, 0, 0, 9
    )
    return b"\x08\x00" + head + struct.pack("!HH", *ports) + bytes(16)


def ipv6(protocol: int = 17, ports: tuple[int, int] = (7, 8)) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, 24, protocol, 64) + bytes(15) + b"\x01" + bytes(15) + b"\x02"
    return b"\x86\xdd" + head + struct.pack("!HH", *ports) + bytes(20)


def key(body: bytes, to: bytes = CLIENT, tag: bytes = b"") -> bytes:
    return flow_key(to + GUEST + tag + body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (key(ipv4()), key(ipv4(ttl=63))),
        (key(ipv4()), key(ipv4(), tag=TAG)),
        (key(ipv6()), key(ipv6(), tag=TAG)),
        (key(ipv4(fragment=0x2000)), key(ipv4(fragment=0x00B9, ports=(1, 2)))),
        (key(ipv4(protocol=1, ports=(0x0800, 1))), key(ipv4(protocol=1, ports=(0x0800, 2)))),
        (key(ipv4(fragment=0x4000)), key(ipv4())),
    ],
    ids=["hop limit", "tag", "tag of IPv6", "fragments", "echo requests", "not to be fragmented"],
)
def test_of_one_flow(one: bytes, other: bytes) -> None:
    assert one == other


def test_flows_are_told_apart() -> None:
    keys = [
        key(ipv4()),
        key(ipv4(), to=OTHER),
        key(ipv4(ports=(7, 9))),
        key(ipv4(protocol=6)),
        key(ipv4(source=2)),
        key(ipv4(protocol=1)),
        key(ipv6()),
        key(ipv6(ports=(1, 8))),
        key(ipv6(protocol=58)),
        key(b"\x08\x06" + bytes(28)),
        key(b"\x88\xb6" + bytes(46)),
    ]
    assert len(set(keys)) == len(keys)


def test_options_do_not_hide_the_ports() -> None:
    body = bytearray(ipv4(ports=(1, 2)))
    body[2] = 0x46
    with_options = bytes(body[:22]) + bytes(4) + bytes(body[22:])
    assert key(with_options) == key(ipv4(ports=(1, 2)))


@pytest.mark.parametrize("protocol", [1, 6, 17, 47])
def test_the_short_way_for_usual_frames_gives_the_same(protocol: int) -> None:
    usual = ipv4(protocol=protocol)
    assert key(usual) == key(usual, tag=TAG)
