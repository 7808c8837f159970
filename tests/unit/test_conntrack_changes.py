"""Which connections are sent to the other host, and when again."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from dom0.conntrack.changes import Changes, SentEntries
from dom0.conntrack.entry import TCP, Entry, Key
from dom0.conntrack.idle_addresses import MOST_ASKED, candidates, question

A, B = socket.inet_aton("10.0.0.100"), socket.inet_aton("10.0.0.10")
ONE = Entry(Key(0, TCP, A, B, bytes.fromhex("c3500016")), 0x6, 100, state=(3, 7, 7, 0, 0))
TWO = replace(ONE, key=replace(ONE.key, detail=bytes.fromhex("c3510016")))


def test_each_once() -> None:
    sent = SentEntries()
    assert sent.changes([ONE, TWO], 0) == Changes([ONE, TWO], [])
    assert not sent.changes([ONE, TWO], 1)
    assert len(sent) == 2


@pytest.mark.parametrize(
    "changed",
    [
        replace(ONE, state=(4, 7, 7, 0, 0)),
        replace(ONE, status=0x2),
        replace(ONE, mark=1),
        replace(ONE, labels=bytes(15) + b"\1"),
    ],
)
def test_again_when_changed(changed: Entry) -> None:
    sent = SentEntries()
    sent.changes([ONE, TWO], 0)
    assert sent.changes([changed, TWO], 1) == Changes([changed], [])


def test_again_before_it_expires_there_if_it_lives_on_here() -> None:
    sent = SentEntries()
    sent.changes([ONE], 0)
    assert not sent.changes([replace(ONE, timeout_s=80)], 20), "it ages here as there"
    assert not sent.changes([ONE], 20), "there it has 80 s left, of 100"
    assert sent.changes([ONE], 30) == Changes([ONE], []), "there it has 70 s left, of 100"
    assert not sent.changes([ONE], 31)


def test_what_has_ended_is_told_once() -> None:
    sent = SentEntries()
    sent.changes([ONE, TWO], 0)
    assert sent.changes([ONE], 1) == Changes([], [TWO.key])
    assert not sent.changes([ONE], 2)


def test_asked_are_the_ends_that_may_be_the_vms() -> None:
    many = [
        replace(ONE, key=replace(ONE.key, source=bytes((10, 1, one >> 8, one & 255)))) for one in range(1000)
    ]
    found = candidates([*many, TWO], frozenset(), frozenset([bytes((10, 1, 0, 0))]))
    assert found[0] == IPv4Address(B), "it has most connections"
    assert len(found) == MOST_ASKED
    assert IPv4Address("10.1.0.0") not in found, "it is this host"


def test_nothing_is_asked_where_the_vm_has_shown_an_address_or_this_host_is_one_end() -> None:
    six = replace(ONE, key=replace(ONE.key, source=bytes(15) + b"\5", destination=bytes(15) + b"\6"))
    assert candidates([ONE, six], frozenset([B]), frozenset()) == [ip_address("::5"), ip_address("::6")]
    assert candidates([ONE], frozenset(), frozenset([A])) == []


def test_groups_are_not_asked() -> None:
    group = replace(ONE, key=replace(ONE.key, source=socket.inet_aton("224.0.0.1")))
    assert candidates([group], frozenset(), frozenset()) == [IPv4Address(B)]


@pytest.mark.parametrize("address", ["10.0.0.10", "fd00::10"])
def test_the_vm_alone_is_asked(address: str) -> None:
    asker, guest = bytes.fromhex("020000000001"), bytes.fromhex("525400000001")
    asked = question(asker, guest, ip_address(address))
    assert (asked[:6], asked[6:12]) == (guest, asker)
    assert ip_address(address).packed in asked
