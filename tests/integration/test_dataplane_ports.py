"""A guest goes from one host to the other while frames come for it: two hosts, a switch, a tunnel, all of the kernel's own."""

import os
import subprocess
import time
from contextlib import closing
from ipaddress import ip_address
from typing import Any

import pytest
from dataplane_kit import (
    BROADCAST,
    CLIENT,
    GUEST,
    Guest,
    Traffic,
    frame,
    ip,
    isolated,
    numbers,
    until,
)
from dataplane_pair import Pair

from dom0 import bridges
from dom0.dataplane import classifier, netdev, tunnel
from dom0.dataplane.announce import announcements
from dom0.dataplane.destination_port import Opened
from dom0.dataplane.gate import Bounds
from dom0.dataplane.listener import Listener, source_filter
from dom0.dataplane.park import NO_OFFLOAD
from dom0.dataplane.sender import Sender
from dom0.dataplane.senders import setup_frame
from dom0.dataplane.source_port import Released, Reopened, SourcePort
from dom0.dataplane.stand_in import StandIn
from dom0.dataplane.stranded import READ_AHEAD

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
GROUP, LATE = 1, 2
"""Streams: broadcast frames, and frames that came by the old way."""


def mixed(number: int) -> list[bytes]:
    """Unicast; every twentieth time a broadcast frame too."""
    group = [frame(number // 20, GROUP, BROADCAST)] if number % 20 == 0 else []
    return [frame(number), *group]


def judge(got: list[bytes], total: int, stream: int = 0, possibly_twice: int = 0) -> None:
    """Every frame, in order; none twice but for those that were said to be (and these in order too)."""
    found = numbers(got, stream)
    missing = sorted(set(range(total)) - set(found))
    assert not missing, f"stream {stream}: {len(missing)} lost: {missing[:10]}"
    assert len(found) - total <= possibly_twice, f"stream {stream}: {len(found) - total} twice"
    seen: set[int] = set()
    firsts = [one for one in found if not (one in seen or seen.add(one))]  # type: ignore[func-returns-value]
    assert firsts == sorted(firsts), f"stream {stream}: reordered"


def move(pair: Pair, first: Guest, orderly: bool) -> tuple[Released, Opened, list[bytes]]:
    """The switchover, as the daemons do it: managed (the guest takes what it has, then stops) or surprised by the stop."""
    if orderly:
        parked_too.append(len(first.got))
        pair.destination.expect()
        with pair.a.host:
            pair.source.hold()
            until(lambda: not pair.source.unread(), 1, "the guest took what it had")
            time.sleep(0.005)
            released = pair.source.release(None)
        first.stop()
    else:
        stop_ns = first.stop()
        pair.precopy(0)
        time.sleep(0.003)
        pair.source.hold()
        pair.destination.expect()
        with pair.a.host:
            released = pair.source.release(stop_ns)
    time.sleep(0.05)  # the last copy
    second = pair.arrive()
    opened = pair.open()
    time.sleep(0.05)
    return released, opened, [*first.got, *_finish(second)]


def delivered_at_both(first: Guest, orderly: bool) -> int:
    """At most so many group frames: those that came after the destination began to wait and before the source held.

    And those that were under way then, two bursts of the sender's: their copies for both hosts do not arrive at the same time.
    """
    return len(numbers(first.got[parked_too[-1] :], GROUP)) + 8 if orderly else 0


def in_precopy(pair: Pair, *traffic: Any) -> tuple[Guest, Traffic]:
    """The guest on the source, and what the client sends it (:class:`Traffic`'s arguments) for a while."""
    pair.attach()
    first = Guest(pair.a.tap)
    sent = Traffic(pair.client.write, *traffic)
    pair.precopy(0.2)
    return first, sent


def _finish(guest: Guest) -> list[bytes]:
    pending.append(guest)
    return []


pending: list[Guest] = []
parked_too: list[int] = []
"""How many frames the guest at the source had got when the destination began to wait, for each orderly move."""


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("orderly", [True, False])
@isolated()
def test_the_network_notices_nothing(version: int, orderly: bool) -> None:
    pair = Pair(version)
    first, traffic = in_precopy(pair, 4000, mixed)
    released, opened, got = move(pair, first, orderly)
    total = traffic.stop()
    time.sleep(0.05)
    second = pending.pop()
    second.stop()
    sent, received = pair.across()
    assert sent == received > 0
    got += second.got
    assert released.missing == opened.missing == 0
    assert released.parked > 0 and (orderly or released.stranded > 0)
    judge(got, total, 0, released.possible_duplicates)
    twice = released.possible_duplicates + delivered_at_both(first, orderly)
    judge(got, -(-total // 20), GROUP, twice)
    assert numbers(first.got) and numbers(second.got)
    assert not [one for one in got if one[6:12] == GUEST], "the guest heard itself"
    pair.close()
    assert pair.a.host.devices() == pair.a.before
    assert pair.b.host.devices() == pair.b.before
    for side in (pair.a, pair.b):
        with side.host:
            assert netdev.get_queue_length("tap0") == 1000
            assert not any(classifier.is_attached("tap0", one) for one in classifier.Direction)


@isolated()
def test_back_again_everything_comes_back_in_order() -> None:
    pair = Pair()
    first, traffic = in_precopy(pair, 3000)
    stop_ns = first.stop()
    pair.source.hold()
    pair.destination.expect()
    with pair.a.host:
        released = pair.source.release(stop_ns)
        time.sleep(0.05)  # frames follow the guest, which does not come
        pair.source.turn(False)
        again = Guest(pair.a.tap)
        brought = pair.source.reopen()
    time.sleep(0.05)
    total = traffic.stop()
    time.sleep(0.05)
    again.stop()
    assert brought.frames > 0 and brought.missing == released.missing == 0
    judge(first.got + again.got, total)
    assert len(numbers(first.got + again.got)) == total
    pair.close()
    assert pair.a.host.devices() == pair.a.before
    assert pair.b.host.devices() == pair.b.before


@isolated()
def test_back_again_the_frame_that_a_qemu_with_vhost_reads_and_keeps_is_none_of_the_guests() -> None:
    pair = Pair()
    first, traffic = in_precopy(pair, 3000)
    pair.source.hold()
    pair.destination.expect()
    with pair.a.host:
        until(lambda: not pair.source.unread(), 1, "the guest took what it had")
        pair.source.release(None)
        first.stop()
        time.sleep(0.05)  # frames follow the guest, which does not come
        pair.source.turn(False)
        pair.source.take_back()
        assert pair.a.tap.read() is not None
        again = Guest(pair.a.tap)
        pair.source.reopen()
    time.sleep(0.05)
    total = traffic.stop()
    time.sleep(0.05)
    again.stop()
    judge(first.got + again.got, total)
    pair.close()


@isolated()
def test_a_tap_that_goes_before_the_release_takes_nothing_with_it() -> None:
    """The hypervisor was quicker than the daemons: the guest has left, and its tap with it."""
    pair = Pair()
    first, traffic = in_precopy(pair, 3000)
    stop_ns = first.stop()
    time.sleep(0.02)  # stranded
    pair.source.hold()
    time.sleep(0.02)  # parked
    total = traffic.stop()
    time.sleep(0.05)
    os.close(pair.a.tap.fd)
    with pair.a.host:
        pair.source.turn(False)
        released = pair.source.release(stop_ns)
    pair.destination.expect()
    with pair.b.host:
        second = Guest(pair.b.tap)
        pair.destination.resumed()
    time.sleep(0.05)
    second.stop()
    assert released.stranded > 0 and released.parked > 0 and released.missing == 0
    assert pair.source.copy_complete
    judge(first.got + second.got, total, 0, released.possible_duplicates)
    pair.close()
    assert pair.a.host.devices() == pair.a.before - {"tap0"}


def stopped_unseen(pair: Pair, early_ms: int) -> tuple[Guest, int, int]:
    """vhost stops ``early_ms`` before QEMU's STOP; then QEMU reads a frame. The guest, how many were sent, the stop (ns)."""
    first, traffic = in_precopy(pair, 1000)
    sent = traffic.stop()
    pair.precopy(0.03)
    first.stop()
    pair.client.write(frame(sent))
    pair.precopy(early_ms / 1000)
    stop_ns = time.time_ns()
    assert pair.a.tap.read() == frame(sent)
    return first, sent + 1, stop_ns


def goes_on(pair: Pair) -> list[bytes]:
    """What the guest gets at the destination."""
    time.sleep(0.05)  # the last copy
    second = pair.arrive()
    pair.open()
    time.sleep(0.05)
    second.stop()
    return second.got


@isolated()
def test_what_a_stopped_hypervisor_still_reads_is_sent_again() -> None:
    """Machines, `virsh migrate`: vhost had stopped 8 ms before QEMU's STOP. QEMU then read a frame, and the tap looked empty."""
    pair = Pair()
    first, total, stop_ns = stopped_unseen(pair, 8)
    pair.precopy(0.02)  # nobody has told us yet
    assert not pair.source.unread()
    pair.source.hold()
    pair.destination.expect()
    with pair.a.host:
        released = pair.source.release(stop_ns)
    assert released.stranded - released.possible_duplicates <= 1
    judge(first.got + goes_on(pair), total, 0, released.possible_duplicates)


@isolated()
@pytest.mark.parametrize("early_ms", [0, 8])
def test_a_guest_that_stopped_before_it_was_let_go_loses_nothing(early_ms: int) -> None:
    """The hypervisor stops it by itself in the moment in which its tap is waited for, reads one frame more, and the tap is empty."""
    pair = Pair()
    first, total, stop_ns = stopped_unseen(pair, early_ms)
    pair.destination.expect()
    with pair.a.host:
        pair.source.hold()
        assert pair.source.release(None).stranded == 0
        late = pair.source.look_again(stop_ns)
        assert late is not None and late.stranded >= 1
        assert pair.source.look_again(time.time_ns()) is None
    judge(first.got + goes_on(pair), total, 0, late.possible_duplicates)


@isolated()
def test_a_guest_that_ran_when_it_was_let_go_is_sent_nothing_again() -> None:
    pair = Pair()
    _first, traffic = in_precopy(pair, 1000)
    traffic.stop()
    pair.precopy(0.02)
    with pair.a.host:
        pair.source.hold()
        assert pair.source.release(None).stranded == 0
        assert pair.source.look_again(time.time_ns()) is None


@isolated()
def test_a_stand_in_gets_what_comes_late_when_the_tap_has_gone() -> None:
    """The guest's new host has been heard at the uplink by then: a bridge that learned that would drop it."""
    pair = Pair()
    first, traffic = in_precopy(pair, 1000)
    with pair.a.host:
        stand_in = StandIn(pair.source.gate, pair.settings_a)
        ip("link", "set", stand_in.name, "master", "br0")
        stand_in.stand_before()
        bridges.pin(stand_in.name, GUEST.hex(":"))
    pair.precopy(0.1)
    _released, _opened, got = move(pair, first, orderly=True)
    os.close(pair.a.tap.fd)
    with pair.fabric, closing(Sender("left")) as old_way:
        old_way.send(NO_OFFLOAD + announcements(GUEST, [ip_address("192.0.2.50")])[0])
        for number in range(100):
            old_way.send(NO_OFFLOAD + frame(number, LATE))
    total = traffic.stop()
    time.sleep(0.1)
    second = pending.pop()
    second.stop()
    got += second.got
    judge(got, total)
    judge(got, 100, LATE)
    with pair.a.host:
        stand_in.close()
    pair.close()
    assert pair.a.host.devices() == pair.a.before - {"tap0"}


@pytest.mark.parametrize("orderly", [True, False])
@isolated()
def test_the_frame_that_an_incoming_qemu_with_vhost_reads_and_keeps_is_none_of_the_guests(
    orderly: bool,
) -> None:
    """``virsh suspend`` and ``resume`` alone lose one so; a migration lost the first that came by the tunnel."""
    pair = Pair()
    first, traffic = in_precopy(pair, 1000)
    until(lambda: pair.b.tap.read() is not None, 1, "QEMU read a frame")
    released, _opened, got = move(pair, first, orderly)
    total = traffic.stop()
    time.sleep(0.05)
    second = pending.pop()
    second.stop()
    judge(got + second.got, total, 0, released.possible_duplicates)
    pair.close()
    assert pair.b.host.devices() == pair.b.before


@isolated()
def test_setup_frames_go_the_way_of_what_comes_directly_and_end_at_the_gate() -> None:
    """Also at a stand-in's, where a switch floods that has not yet heard the guest here."""
    pair = Pair()
    first, traffic = in_precopy(pair, 1000)
    with pair.a.host:
        (header,) = pair.source.senders.headers
        copy = setup_frame(header, 0)
        assert numbers([copy]) and copy == frame(*numbers([copy])), (
            "one that reached the guest would come twice"
        )
    with pair.b.host:
        stand_in = StandIn(pair.destination.gate, pair.settings_b)
        ip("link", "set", stand_in.name, "master", "br0")
        pair.destination.allow_setup()
        pair.destination.expect()
        pair.destination.tell_switch()
        pair.destination.send_setup("uplink", [copy])
        until(lambda: pair.destination.set_up == 1, 1, "the setup frame came to the gate")
        ip("link", "set", "tap0", "nomaster")  # the bridge now floods it
        pair.destination.send_setup("uplink", [copy])
        ip("link", "set", "tap0", "master", "br0")
        with pytest.raises(OSError, match="no interface"):
            pair.destination.send_setup("nowhere", [])
        stand_in.close()
    _released, _opened, got = move(pair, first, orderly=True)
    total = traffic.stop()
    time.sleep(0.05)
    second = pending.pop()
    second.stop()
    judge(got + second.got, total)
    pair.close()
    assert pair.b.host.devices() == pair.b.before


@isolated()
def test_to_another_lan_the_tunnel_is_the_wire() -> None:
    pair = Pair(stretched=True)
    first, traffic = in_precopy(pair, 3000)
    with pair.a.host:
        pair.source.hold()
        until(lambda: not pair.source.unread(), 1, "the guest took what it had")
        pair.source.release(None)
    first.stop()
    second = pair.arrive()
    opened = pair.open()
    time.sleep(0.05)
    total = traffic.stop()
    time.sleep(0.05)
    second.stop()
    assert opened.direct == 0
    judge(first.got + second.got, total)
    # what the guest sends comes out of the tunnel at the old host
    with pair.a.host:
        heard = Listener(pair.source.tunnel, source_filter(GUEST))
        pair.b.tap.write(CLIENT + GUEST + frame(1)[12:])
        until(heard.drain, 1, "the guest was heard at its old host")
    pair.close()
    assert pair.a.host.devices() == pair.a.before
    assert pair.b.host.devices() == pair.b.before


@isolated()
def test_more_than_may_wait_is_dropped_and_counted() -> None:
    pair = Pair(bounds=Bounds(20, 1 << 20))
    pair.attach()
    pair.source.hold()
    for number in range(50):
        pair.client.write(frame(number))
    until(lambda: pair.source.counts().overflow == 30, 1, "thirty were counted")
    pair.destination.expect()
    with pair.a.host:
        assert pair.source.release(None).parked == 20
    with pair.b.host:
        until(lambda: pair.destination.counts().tunnelled == 20, 1, "twenty came")
    assert numbers(pair.b.tap.drain()) == list(range(20))
    pair.close()


@isolated()
def test_a_guest_that_is_slow_gets_what_waits_for_it_after_the_end() -> None:
    """More waits in the new tap than its ring takes by default; the migration ends before the guest has read it."""
    pair = Pair()
    pair.attach()
    pair.destination.expect()
    pair.source.hold()
    for number in range(3000):
        pair.client.write(frame(number))
    until(lambda: pair.source.counts().parked == 3000, 2, "all wait")
    with pair.a.host:
        pair.source.release(None)
    with pair.b.host:
        until(lambda: pair.destination.counts().tunnelled == 3000, 2, "all came")
        pair.destination.resumed()
        pair.announce_until_marked()
        pair.destination.open()
    pair.close()
    got = pair.b.tap.drain()
    judge(got, 3000)


def with_3000_unread() -> Pair:
    """In pre-copy: more than a tap takes by default."""
    pair = Pair()
    pair.attach()
    pair.precopy(0.05)
    for number in range(3000):
        pair.client.write(frame(number))
    with pair.a.host:
        until(lambda: pair.source.unread() == 3000, 2, "all wait in its tap")
    return pair


@isolated()
def test_a_guest_that_is_slow_while_it_is_copied_gets_what_waits_for_it() -> None:
    """More comes than its tap takes by default; it goes, and what it has not read goes after it."""
    pair = with_3000_unread()
    got = [pair.a.tap.read() for _ in range(1000)]
    pair.precopy(0.05)
    stop_ns = time.time_ns()
    pair.source.hold()
    pair.destination.expect()
    with pair.a.host:
        released = pair.source.release(stop_ns)
    assert released.stranded == 2000 + released.possible_duplicates
    with pair.b.host:
        until(lambda: pair.destination.counts().tunnelled == released.stranded, 2, "the others came")
    judge([one for one in got if one] + pair.b.tap.drain(), 3000, 0, released.possible_duplicates)
    pair.close()


@isolated()
def test_a_stop_that_is_heard_of_late_while_little_comes() -> None:
    """Machines, 100 packets/s, 2.5 s late: what was unread was more than the copy had blocks, and 164 were lost, unseen."""
    pair = Pair()
    pair.attach()
    pair.precopy(0.05)
    stop_ns = time.time_ns()
    for number in range(300):
        pair.client.write(frame(number))
        pair.precopy(0.005)
    pair.source.hold()
    pair.destination.expect()
    with pair.a.host:
        released = pair.source.release(stop_ns)
    assert released == Released(300, 0, 0, 0)
    with pair.b.host:
        until(lambda: pair.destination.counts().tunnelled == 300, 2, "all came")
    judge(pair.b.tap.drain(), 300)
    pair.close()


@isolated()
def test_what_no_copy_is_left_of_is_counted() -> None:
    """The daemon had no turn for long, and the tap takes more than the copy."""
    pair = Pair(recorder_bytes=1 << 20)
    pair.attach()
    pair.precopy(0.05)
    stop_ns = time.time_ns()
    for number in range(900):
        pair.client.write(frame(number, size=1400))
    with pair.a.host:
        until(lambda: pair.source.unread() == 900, 2, "all wait in its tap")
    pair.source.hold()
    pair.destination.expect()
    with pair.a.host:
        released = pair.source.release(stop_ns)
    assert released.missing == released.uncopied > 0
    in_doubt = released.stranded + released.missing - 900
    assert released.possible_duplicates <= in_doubt <= READ_AHEAD
    pair.close()


@isolated()
def test_what_a_tap_has_no_room_for_while_its_guest_is_slow_is_counted() -> None:
    pair = Pair()
    pair.attach()
    pair.precopy(0.05)
    with pair.a.host:
        room = netdev.get_queue_length("tap0")
    for number in range(room + 500):
        pair.client.write(frame(number))
    with pair.a.host:
        until(lambda: pair.source.unread() == room, 2, "its tap is full")
    stop_ns = time.time_ns()
    pair.source.hold()
    with pair.a.host:
        assert pair.source.release(stop_ns).dropped == 500
    pair.close()


@isolated()
def test_a_longer_tap_costs_nothing() -> None:
    """It is made so, and as it was, under traffic."""
    pair = Pair()
    first, traffic = in_precopy(pair, 4000)
    for _ in range(20):
        with pair.a.host:
            pair.source.make_room()
            assert netdev.get_queue_length("tap0") > 1000
            pair.source.give_room_back()
            assert netdev.get_queue_length("tap0") == 1000
    total = traffic.stop()
    time.sleep(0.05)
    first.stop()
    judge(first.got, total)
    pair.close()


@isolated()
def test_before_the_destination_has_asked_there_is_room_and_no_tunnel() -> None:
    """And it never does: all is as it was."""
    pair = Pair()
    with pair.a.host:
        classifier.make_ready("tap0")  # as when libvirt makes it
    first = Guest(pair.a.tap)
    traffic = Traffic(pair.client.write, 4000)
    with pair.a.host:
        source = SourcePort("tap0", pair.settings_a)
        source.make_room()
        assert netdev.get_queue_length("tap0") > 1000
        assert not source.connected and not netdev.exists(source.tunnel)
        for _ in range(20):
            source.turn(True)
            time.sleep(0.005)
        source.close()
        assert netdev.get_queue_length("tap0") == 1000
        assert not classifier.is_attached("tap0", classifier.Direction.EGRESS)
    total = traffic.stop()
    time.sleep(0.05)
    first.stop()
    judge(first.got, total)


@isolated()
def test_a_guest_that_is_slow_and_stays_loses_nothing_when_its_tap_is_as_it_was() -> None:
    pair = with_3000_unread()
    first = Guest(pair.a.tap)
    pair.close()
    until(lambda: len(numbers(first.got)) == 3000, 2, "it has read them")
    first.stop()
    judge(first.got, 3000)
    with pair.a.host:
        assert netdev.get_queue_length("tap0") == 1000


@isolated()
def test_a_guest_that_comes_back_late_gets_all_that_had_followed_it() -> None:
    """More was held than the old tap's ring takes; it is brought back before the guest runs again."""
    pair = Pair()
    pair.attach()
    pair.precopy(0.05)
    stop_ns = time.time_ns()
    pair.source.hold()
    with pair.a.host:
        pair.source.release(stop_ns)
        for number in range(3000):
            pair.client.write(frame(number))
        until(lambda: pair.source.counts().diverted == 3000, 2, "all followed")
        assert pair.source.reopen() == Reopened(3000, 0)
    pair.close()
    judge(pair.a.tap.drain(), 3000)


@isolated()
def test_put_back_with_everything_full() -> None:
    """The guest never came: what waits for it at the destination is dropped, and nothing is left there."""
    pair = Pair(bounds=Bounds(20, 1 << 20))
    pair.attach()
    pair.destination.expect()
    pair.source.hold()
    for number in range(30):
        pair.client.write(frame(number))
    with pair.a.host:
        pair.source.release(None)
        assert pair.source.reopen() == Reopened(20, 10)
    pair.close()
    assert numbers(pair.a.tap.drain()) == list(range(20))
    for side in (pair.a, pair.b):
        assert side.host.devices() == side.before
        with side.host:
            assert netdev.get_queue_length("tap0") == 1000


@isolated()
@pytest.mark.parametrize("blocked", [False, True], ids=["open", "firewall"])
def test_what_enters_the_tunnel_and_what_leaves_it_is_counted(blocked: bool) -> None:
    """A destination whose firewall drops the tunnel: nothing else would show it."""
    pair = Pair()
    pair.attach()
    pair.source.hold()
    pair.destination.expect()
    if blocked:
        with pair.b.host:
            chain = "chain inet filter input"
            hook = "{ type filter hook input priority 0; }"
            rule = f"inet filter input udp dport {tunnel.UDP_PORT} drop"
            commands = f"add table inet filter; add {chain} {hook}; add rule {rule}"
            subprocess.run(["nft", commands], check=True)
    for number in range(100):
        pair.client.write(frame(number))
    until(lambda: pair.source.counts().parked == 100, 1, "all wait")
    with pair.a.host:
        assert pair.source.release(None).parked == 100
    for number in range(100, 150):
        pair.client.write(frame(number))
    until(lambda: pair.source.counts().diverted == 50, 1, "the rest followed")
    assert pair.across() == (150, 0 if blocked else 150)
    assert len(numbers(pair.b.tap.drain())) == (0 if blocked else 150)
    pair.close()
