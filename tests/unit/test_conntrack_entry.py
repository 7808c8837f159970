"""Entries of connection tracking as ctnetlink has them: what is made for one kernel is what is read from another."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from dom0.conntrack.entry import ICMP, LIBERAL, SCTP, TCP, Entry, Key, create, parse
from dom0.fib.message import MalformedError

A, B = socket.inet_aton("10.0.0.100"), socket.inet_aton("10.0.0.10")
A6, B6 = (socket.inet_pton(socket.AF_INET6, one) for one in ("fd00::100", "fd00::10"))
SSH = Key(0, TCP, A, B, bytes.fromhex("c3500016"))
ENTRIES = {
    "tcp": Entry(SSH, 0x6, 431_999, state=(3, 7, 6, LIBERAL | 3, LIBERAL | 3)),
    "tcp with mark, labels and zone": Entry(
        replace(SSH, zone=9), 0x6, 60, 0x77, bytes(15) + b"\x80", (3, 7, 6, LIBERAL, LIBERAL)
    ),
    "tcp over IPv6": Entry(
        replace(SSH, source=A6, destination=B6), 0x6, 60, state=(1, 0, 0, LIBERAL, LIBERAL)
    ),
    "udp": Entry(Key(0, 17, B, A, bytes.fromhex("00350035")), 0x2, 30),
    "ping": Entry(Key(0, ICMP, A, B, bytes.fromhex("12340800")), 0x2, 29),
    "ping over IPv6": Entry(Key(0, 58, A6, B6, bytes.fromhex("12348000")), 0x2, 29),
    "sctp": Entry(Key(0, SCTP, A, B, bytes.fromhex("00010002")), 0x6, 60, state=(3, 0x01020304, 0x05060708)),
    "another protocol": Entry(Key(0, 89, A, B, b""), 0x2, 600),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_read_as_it_was_made(entry: Entry) -> None:
    assert parse(create(entry)) == entry


def test_answers_to_a_ping() -> None:
    key = ENTRIES["ping"].key
    answer = key.answered()
    assert answer == Key(0, ICMP, B, A, bytes.fromhex("12340000"))
    assert answer.answered() == key


def test_an_icmp_error_is_no_connection() -> None:
    unreachable = replace(ENTRIES["ping"].key, detail=bytes.fromhex("12340301"))
    assert unreachable.answered() is None
    with pytest.raises(ValueError, match="without an answer"):
        create(replace(ENTRIES["ping"], key=unreachable))


def test_a_translated_connection_is_seen() -> None:
    """Its answers go to another address than its packets came from."""
    asked, masqueraded = (
        create(ENTRIES["tcp"]),
        create(replace(ENTRIES["tcp"], key=replace(SSH, source=B6[:4]))),
    )
    tuple_bytes = 4 + 20 + 28
    begin = 20 + tuple_bytes
    mixed = asked[:begin] + masqueraded[begin : begin + tuple_bytes] + asked[begin + tuple_bytes :]
    assert parse(mixed).translated
    assert not parse(asked).translated


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_message_cut_off_is_malformed_or_poorer(entry: Entry) -> None:
    whole = create(entry)
    for length in range(len(whole)):
        try:
            found = parse(whole[:length])
        except MalformedError:
            continue
        assert found.key.source == entry.key.source
