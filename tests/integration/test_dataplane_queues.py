"""A guest with several queues an interface: the kernel counts what was read from all of them together."""

import asyncio
import os
import struct
import time

import pytest
from dataplane_kit import CLIENT, GUEST, Guest, Host, Tap, isolated, until
from dataplane_pair import Pair

from dom0 import executor
from dom0.dataplane import netdev, steering
from dom0.dataplane.park import NO_OFFLOAD
from dom0.dataplane.sender import Sender
from vmnet.actions import Action, Kind
from vmnet.internet_checksum import checksum

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
FLOWS = 16
READ_FIRST = 3
"""Rounds that both queues read; then one hangs."""
ROUNDS = 12


def udp(number: int) -> bytes:
    """A packet of one of :data:`FLOWS` flows: the kernel gives each a queue."""
    payload = struct.pack("!I", number)
    ports = struct.pack("!4H", 4000 + number % FLOWS, 9, 8 + len(payload), 0)
    addresses = bytes([198, 51, 100, 1, 192, 0, 2, 50])
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0) + addresses
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return (GUEST + CLIENT + b"\x08\0" + header + ports + payload).ljust(60, b"\0")


def number_of(frame: bytes) -> int:
    return int.from_bytes(frame[42:46], "big")


def numbers(guest: Guest) -> list[int]:
    return [number_of(one) for one in guest.got if one[6:12] == CLIENT and one[12:14] == b"\x08\0"]


@isolated()
def test_until_the_guest_runs_a_new_host_gives_it_all_by_the_first_queue() -> None:
    """QEMU attaches the guest's other queues before that, reads a frame of each, and with vhost the guest never gets it."""
    pair = Pair(multi_queue=True)
    pair.attach()
    first = Guest(pair.a.tap)
    pair.precopy(0.05)
    with pair.b.host:
        pair.destination.expect()
        assert not pair.destination.unsteered
        other_queue = pair.b.tap.second()
        assert netdev.queues("tap0") == 2
    stop_ns = first.stop()
    with pair.a.host:
        pair.source.hold()
        pair.source.release(stop_ns)
    for nth in range(FLOWS):
        pair.client.write(udp(nth))
    until(lambda: pair.destination.tunnel_received >= FLOWS, 2, "all came by the tunnel")
    assert other_queue.drain() == [], "what a QEMU would have read"
    there, other = pair.arrive(), Guest(other_queue)
    pair.open()
    for nth in range(FLOWS, 2 * FLOWS):
        pair.client.write(udp(nth))
    until(lambda: len(set(numbers(there))) >= 2 * FLOWS, 2, "all are there")
    assert numbers(other) == []
    pair.close()
    for nth in range(2 * FLOWS, 3 * FLOWS):
        pair.client.write(udp(nth))
    until(lambda: len(set(numbers(there)) | set(numbers(other))) >= 3 * FLOWS, 2, "all are there")
    assert numbers(other), "the kernel chooses again"
    for one in (there, other):
        one.stop()


@isolated()
def test_what_a_daemon_that_died_left_is_undone() -> None:
    """From the journal; and a tap of the same name in another network is left alone."""
    host, neighbour = Host(), Host()
    for one in (neighbour, host):
        with one:
            tap = Tap("tap0", multi_queue=True)
            other = tap.second()
            sender = Sender("tap0")
            if one is host:
                steering.by_first_queue("tap0")
            for nth in range(FLOWS):
                sender.send(NO_OFFLOAD + udp(nth))
            assert len(tap.drain()) > 0
            assert bool(other.drain()) is (one is neighbour)
    with host:
        asyncio.run(executor.perform(Action(Kind.NO_STEER, "tap0"), None))
        for nth in range(FLOWS):
            sender.send(NO_OFFLOAD + udp(nth))
        assert tap.drain() and other.drain()
        asyncio.run(executor.perform(Action(Kind.NO_STEER, "tap1"), None))


@isolated()
def test_one_queue_of_two_hangs_when_the_guest_stops() -> None:
    pair = Pair(multi_queue=True)
    with pair.a.host:
        second_queue = pair.a.tap.second()
        assert netdev.queues("tap0") == 2
        assert netdev.queues("uplink") == 1 == netdev.queues("nothing")
    pair.attach()
    reads, hangs = Guest(pair.a.tap), Guest(second_queue)
    for nth in range(FLOWS * ROUNDS):
        if nth == FLOWS * READ_FIRST:
            until(lambda: not pair.source.unread(), 2, "both queues were read")
            hangs.stop()
        pair.client.write(udp(nth))
        pair.precopy(0.001)
    until(lambda: pair.source.recorder.total >= FLOWS * ROUNDS or pair.precopy(0.001), 2, "all came")
    time.sleep(0.15)  # what the other queue has read is older than a stopping guest's
    stop_ns = reads.stop()
    unread = pair.source.unread()
    assert 0 < unread < FLOWS * (ROUNDS - READ_FIRST), "one queue alone was read"
    with pair.a.host:
        pair.source.hold()
        pair.destination.expect()
        released = pair.source.release(stop_ns)
    there = pair.arrive()
    pair.open()
    time.sleep(0.05)
    there.stop()
    got = [*numbers(reads), *numbers(hangs), *numbers(there)]
    assert set(got) == set(range(FLOWS * ROUNDS))
    assert released.missing == 0
    assert released.stranded >= unread
    assert len(got) - len(set(got)) <= released.possible_duplicates
    pair.close()
