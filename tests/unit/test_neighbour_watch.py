"""When the meter's own host had no MAC address for its target, and which lost packets were sent then."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmnet.probe.neighbour_watch import sent_within, states_of

HERE, OTHER = (socket.inet_aton(one) for one in ("10.0.0.10", "10.0.0.11"))
FAILED, REACHABLE = 0x20, 0x02


def told(kind: int, address: bytes, state: int) -> bytes:
    body = struct.pack("=BxxxiHBB", 2, 7, state, 0, 0) + struct.pack("=HH", 10, 2) + bytes(8)
    body += struct.pack("=HH", 4 + len(address), 1) + address
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_what_the_kernel_tells_of_one_neighbour() -> None:
    data = told(28, OTHER, FAILED) + told(28, HERE, FAILED) + told(24, HERE, 1) + told(28, HERE, REACHABLE)
    assert states_of(data, HERE) == [FAILED, REACHABLE]
    assert states_of(told(29, HERE, REACHABLE), HERE) == [0], "a neighbour that was removed"


@given(st.binary(max_size=80), st.integers(0, 60))
def test_any_datagram(tail: bytes, at: int) -> None:
    whole = told(28, HERE, FAILED)
    states_of(whole[:at] + tail, HERE)
    states_of(tail, HERE)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [([], 0), ([(0, 0)], 0), ([(1, 3)], 2), ([(0, 9)], 4), ([(8, 20)], 2)],
)
def test_lost_packets_that_were_sent_meanwhile(missing: list[tuple[int, int]], expected: int) -> None:
    sent = [number * 100 for number in range(10)]
    assert sent_within(missing, sent, [(200, 300), (750, 950)]) == expected
