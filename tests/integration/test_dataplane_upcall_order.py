"""What leaves a switch is seen by the kernel's own packet socket: behind the switch, and nowhere else."""

import os
import struct

import pytest
from dataplane_kit import CLIENT, ETHERTYPE, GUEST, Guest, isolated, numbers, until
from dataplane_pair import Pair

from dom0.dataplane.flow_key import flow_key
from dom0.dataplane.gate import Bounds
from dom0.dataplane.upcall_order import Leaving

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
UPLINK = "uplink"
ABSENT = bytes.fromhex("525400000077")


def own(number: int, to: bytes = CLIENT) -> bytes:
    return (to + GUEST + ETHERTYPE + struct.pack("!BI", 0, number)).ljust(60, b"\0")


def held() -> Pair:
    """The guest is about to run at the destination, and what it sends is held there."""
    pair = Pair(bounds=Bounds(100_000, 1 << 28))
    pair.hold_own([UPLINK])
    return pair


@isolated()
def test_what_was_held_goes_in_order_and_leaves_without_a_wait() -> None:
    pair = held()
    client = Guest(pair.client)
    for number in range(500):
        pair.b.tap.write(own(number))
    with pair.b.host:
        assert pair.destination.let_go_outgoing()
        assert not pair.destination.own_overtaken()
    until(lambda: len(numbers(client.got)) >= 500, 2, "all has come")
    client.stop()
    assert numbers(client.got) == list(range(500))
    pair.close()
    assert pair.b.host.devices() == pair.b.before


@isolated()
def test_a_frame_that_ends_in_the_switch_is_never_seen() -> None:
    pair = held()
    with pair.b.host:
        with open("/sys/class/net/uplink/brport/unicast_flood", "w") as file:  # noqa: PTH123
            file.write("0")
        client = Guest(pair.client)
        for number in range(3):
            pair.b.tap.write(own(number, ABSENT))
        for number in range(3):
            pair.b.tap.write(own(number, b"\xff" * 6))
        pair.destination.let_go_outgoing()
        assert not pair.destination.own_overtaken()
    until(lambda: len(numbers(client.got)) >= 3, 2, "those to everybody have come")
    client.stop()
    pair.close()


@isolated()
def test_inside_the_switch_from_outside_and_into_the_host_are_told_apart() -> None:
    pair = Pair()
    with pair.b.host:
        leaving = Leaving(GUEST, ["tap0"], [UPLINK])
        pair.client.write((ABSENT + GUEST + ETHERTYPE).ljust(60, b"\0"))  # floods to B, too
        own_address = bytes.fromhex(open("/sys/class/net/br0/address").read().strip().replace(":", ""))  # noqa: PTH123, SIM115
    guest = Guest(pair.b.tap)
    until(lambda: any(one[6:12] == GUEST for one in guest.got), 2, "it has come to B's bridge")
    guest.stop()
    assert not {one for one in leaving.seen() if one[:6] == ABSENT}, "it came in at the uplink"
    found: set[bytes] = set()
    wanted = {flow_key(own(1)), flow_key(own(2, own_address))}
    pair.b.tap.write(own(1))
    pair.b.tap.write(own(2, own_address))

    def left() -> bool:
        found.update(leaving.seen())
        return found >= wanted

    until(left, 2, "both have left, one into the host")
    leaving.close()
