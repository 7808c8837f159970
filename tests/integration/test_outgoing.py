"""What a guest sends from its new host waits for what it sent from its old one: real bridges, real taps, the kernel's own queues."""

import os
import struct
import time

import pytest
from dataplane_kit import CLIENT, ETHERTYPE, GUEST, Guest, Traffic, isolated, numbers, until
from dataplane_pair import Pair

from controller_bridge import last_words, local_frame
from controller_bridge.last_words import Words
from dom0.dataplane.announce import rarp
from dom0.dataplane.classifier import Direction, is_attached
from dom0.dataplane.gate import Bounds
from dom0.dataplane.listener import Listener, broadcast_filter

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MARKER = bytes(range(16))
LAST = last_words.frame(GUEST, MARKER, Words.LAST)


def own(number: int) -> list[bytes]:
    """From the guest to the client."""
    return [(CLIENT + GUEST + ETHERTYPE + struct.pack("!BI", 0, number)).ljust(60, b"\0")]


def held(most: int = 100_000) -> Pair:
    """The guest runs at the destination, and what it sends is held there."""
    pair = Pair(bounds=Bounds(most, 1 << 28))
    pair.hold_own()
    return pair


def let_go() -> bool:
    """Whether the host was quick enough to say that all is in order: then it is. Nothing is lost in any case."""
    pair = held()
    client = Guest(pair.client)
    traffic = Traffic(pair.b.tap.write, 20_000, own)
    time.sleep(0.05)
    assert not numbers(client.got), "it was to wait"
    with pair.b.host:
        in_order = pair.destination.let_go_outgoing()
    time.sleep(0.05)
    total = traffic.stop()
    until(lambda: len(numbers(client.got)) >= total, 2, "all has come")
    client.stop()
    got = numbers(client.got)
    assert (got if in_order else sorted(got)) == list(range(total))
    pair.close()
    assert pair.b.host.devices() == pair.b.before
    with pair.b.host:
        assert not is_attached("tap0", Direction.INGRESS)
    return in_order


@isolated()
def test_what_is_held_goes_in_order_and_before_what_is_sent_later() -> None:
    """A busy host is not always sure of it, and says so."""
    assert any(let_go() for _ in range(8))


@isolated()
def test_what_we_say_in_its_place_does_not_wait() -> None:
    pair = held()
    client = Guest(pair.client)
    pair.b.tap.write(own(0)[0])
    with pair.b.host:
        pair.destination.announce([rarp(GUEST)])
    until(lambda: rarp(GUEST) in client.got, 2, "the announcement has come")
    assert not numbers(client.got)
    client.stop()
    pair.close()


@isolated()
def test_the_last_words_come_behind_all_that_the_guest_has_sent_and_it_does_not_hear_them() -> None:
    pair = held()
    with pair.b.host:
        listener = Listener(None, broadcast_filter(local_frame.ETHER_TYPE))
    client = Guest(pair.client)
    for number in range(1000):
        pair.a.tap.write(own(number)[0])
    pair.source.say(LAST)
    until(lambda: LAST in client.got, 2, "the last words have come to the client")
    assert numbers(client.got[: client.got.index(LAST)]) == list(range(1000))
    assert LAST in listener.drain()
    guest = Guest(pair.b.tap)
    opened = pair.open()
    assert (opened.direct, opened.twice) == (0, 0)
    assert LAST not in guest.got
    guest.stop()
    client.stop()
    listener.close()
    pair.close()


@isolated()
def test_it_says_when_no_more_should_wait() -> None:
    pair = held(64)
    for number in range(30):
        pair.b.tap.write(own(number)[0])
    assert not pair.destination.outgoing_full
    for number in range(30, 40):
        pair.b.tap.write(own(number)[0])
    assert pair.destination.outgoing_full
    client = Guest(pair.client)
    with pair.b.host:
        assert pair.destination.let_go_outgoing()
    until(lambda: numbers(client.got) == list(range(40)), 2, "all has come")
    client.stop()
    pair.close()


@isolated()
def test_what_there_is_no_room_for_is_counted() -> None:
    pair = held(64)
    for number in range(100):
        pair.b.tap.write(own(number)[0])
    client = Guest(pair.client)
    with pair.b.host:
        pair.destination.let_go_outgoing()
    assert pair.destination.outgoing_lost == 36
    until(lambda: numbers(client.got) == list(range(64)), 2, "the others have come")
    client.stop()
    pair.close()
