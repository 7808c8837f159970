"""Connections as a hostile peer sends them: PeerError, or connections of the VM's own addresses and nothing else."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from damage import damaged
from hypothesis import given
from hypothesis import strategies as st

from dom0.conntrack.entry import LIBERAL, TCP, Entry, Key, create, parse
from dom0.conntrack.peer_form import guest_addresses, key_to_json, parse_entries, parse_keys, to_json
from dom0.fib.message import MalformedError
from vmnet.errors import PeerError

GUEST, OTHER = socket.inet_aton("10.0.0.10"), socket.inet_aton("10.0.0.100")
ENTRY = Entry(
    Key(0, TCP, OTHER, GUEST, bytes.fromhex("c3500016")), 0x6, 100, 5, bytes(16), (3, 7, 7, LIBERAL, LIBERAL)
)
VALID: dict[str, Any] = {
    "addresses": ["10.0.0.10", "fd00::10"],
    "new": [to_json(ENTRY)],
    "ended": [key_to_json(ENTRY.key)],
}


def test_a_valid_one_is_read() -> None:
    message = json.loads(json.dumps(VALID))
    guest = guest_addresses(message)
    assert parse_entries(message["new"], guest) == [ENTRY]
    assert parse_keys(message["ended"], guest) == [ENTRY.key]


@given(damaged(VALID))
def test_a_damaged_one(message: dict[str, Any]) -> None:
    guest = guest_addresses(message)
    with contextlib.suppress(PeerError):
        for entry in parse_entries(message.get("new"), guest):
            assert entry.key.has(guest)
            create(entry)
    with contextlib.suppress(PeerError):
        assert all(key.has(guest) for key in parse_keys(message.get("ended"), guest))


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_message_of_the_kernel(changes: list[tuple[int, int]]) -> None:
    message = bytearray(create(ENTRY))
    for at, value in changes:
        message[16 + at % (len(message) - 16)] = value
    with contextlib.suppress(MalformedError):
        parse(bytes(message))


@given(st.binary(max_size=200))
def test_any_message_of_the_kernel(tail: bytes) -> None:
    with contextlib.suppress(MalformedError):
        parse(create(ENTRY)[:20] + tail)
