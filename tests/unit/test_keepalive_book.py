"""What the book says when, on a clock of the test's own; and the book on its way to another host."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keepalive_frames import PEER, VM, bfd, ip, ospf, vrrp
from scapy.contrib.bfd import BFD
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from dom0.router.keepalive import (
    LEAST_INTERVAL_S,
    LIMIT_S,
    MOST_FRAMES_PER_S,
    MOST_SESSIONS,
    KeepaliveBook,
)
from dom0.router.keepalive_handover import export_book, import_book
from vmnet.errors import PeerError


def book(*frames: bytes, at: float = 0.0) -> KeepaliveBook:
    made = KeepaliveBook(VM, random=Random(7))
    for one in frames:
        made.seen(one, at)
    return made


def session(number: int, interval_us: int = 100_000) -> bytes:
    """Of the VM with its ``number``-th neighbour."""
    there = f"198.18.{number >> 8}.{number & 255}"
    control = BFD(
        sta=3, flags=0, my_discriminator=number + 1, min_tx_interval=interval_us, echo_rx_interval=0
    )
    frame = Ether(src=VM.hex(":"), dst=PEER.hex(":")) / ip(destination=there) / UDP(dport=3784) / control
    return bytes(frame)


def said(one: KeepaliveBook, start: float, end: float) -> list[tuple[float, bytes]]:
    """All that is due between two times, asked for exactly when it is."""
    found: list[tuple[float, bytes]] = []
    while (at := one.next(start)) is not None and at < end:
        start = max(at, start)
        found += [(start, frame) for frame in one.due(start)]
    return found


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def test_nothing_is_said_while_the_vm_runs() -> None:
    one = book(bfd())
    assert one.next(0.05) is None
    assert one.due(0.05) == []
    one.stop(0.1)
    one.resume(0.2)
    assert one.next(0.3) is None
    assert one.due(0.3) == []


@given(st.floats(0, 0.3), st.integers(1, 5), st.integers(10_000, 2_000_000))
def test_the_pace_is_the_sessions_own(age_s: float, multiplier: int, interval_us: int) -> None:
    interval_s = interval_us / 1e6
    one = book(bfd(min_tx_interval=interval_us, detect_mult=multiplier, echo_rx_interval=0))
    if not one.entries()[0].fresh(age_s):
        return
    one.stop(age_s)
    times = [at for at, _frame in said(one, age_s, age_s + 4)]
    # the first when the VM would have sent it, or at once if that has passed
    assert age_s <= times[0] <= max(age_s, interval_s)
    highest = 0.9 if multiplier == 1 else 1.0
    assert all(0.75 * interval_s - 1e-9 <= gap <= highest * interval_s + 1e-9 for gap in gaps(times))
    assert one.sent.total() == len(times)


def test_the_neighbour_may_want_it_slower() -> None:
    one = book(bfd(echo_rx_interval=0))
    one.heard(bfd(back=True, min_rx_interval=400_000), 0.0)
    one.seen(bfd(echo_rx_interval=0), 0.1)
    one.stop(0.1)
    assert all(gap >= 0.3 for gap in gaps([at for at, _ in said(one, 0.1, 5)]))


def test_another_sessions_neighbour_changes_nothing() -> None:
    one = book(bfd())
    one.heard(bfd(back=True, your_discriminator=12, min_rx_interval=400_000), 0.0)
    one.heard(bfd(6, back=True, min_rx_interval=400_000), 0.0)
    one.heard(b"", 0.0)
    assert one.entries()[0].interval_s == 0.1


@pytest.mark.parametrize("fields", [{"min_rx_interval": 0}, {"sta": 1}, {"sta": 0}], ids=str)
def test_a_neighbour_that_wants_nothing_gets_nothing(fields: dict[str, int]) -> None:
    one = book(bfd())
    one.heard(bfd(back=True, **fields), 0.0)
    assert len(one) == 0


def test_a_slower_pace_counts_when_it_is_agreed() -> None:
    one = book(bfd(min_tx_interval=100_000))
    one.seen(bfd(min_tx_interval=900_000, flags=0x20), 0.1)
    assert one.entries()[0].interval_s == 0.1
    one.seen(bfd(min_tx_interval=900_000), 0.2)
    assert one.entries()[0].interval_s == 0.9
    one.seen(bfd(min_tx_interval=50_000, flags=0x20), 0.3)
    assert one.entries()[0].interval_s == 0.05


def test_a_new_session_between_the_same_two_starts_anew() -> None:
    one = book(bfd())
    one.heard(bfd(back=True, min_rx_interval=400_000), 0.0)
    one.seen(bfd(my_discriminator=99), 0.1)
    assert len(one) == 1
    assert one.entries()[0].interval_s == 0.1


@pytest.mark.parametrize("last", [bfd(sta=1), bfd(sta=0), bfd(flags=0x02), bfd(flags=0x04, len=26)])
def test_what_the_vm_ends_is_over(last: bytes) -> None:
    one = book(bfd(), last)
    one.stop(0.1)
    assert said(one, 0.1, 2) == []
    assert one.refused.total() == 1


def test_what_the_neighbour_would_ignore_ends_nothing() -> None:
    one = book(bfd(), bfd(detect_mult=0), vrrp(), vrrp(priority=0))
    assert [entry.keepalive.key.protocol for entry in one.entries()] == ["bfd"]
    assert one.refused == {"malformed": 1, "not up": 1}


def test_where_the_vm_was_silent_before_nobody_speaks() -> None:
    one = book(bfd(), ospf(interval=1, dead=4))
    one.stop(2.0)
    assert {key.split()[0] for key in one.sent} == set()
    said(one, 2.0, 5.0)
    assert {key.split()[0] for key in one.sent} == {"ospf"}
    assert one.refused["silent before"] == 1


def test_a_router_that_died_is_missed_in_the_end() -> None:
    one = book(bfd(), vrrp())
    one.stop(0.1)
    times = [at for at, _ in said(one, 0.1, 100)]
    assert LIMIT_S - 0.1 < times[-1] < 0.1 + LIMIT_S
    assert one.next(0.1 + LIMIT_S) is None
    assert one.due(0.1 + LIMIT_S) == []


def test_late_frames_do_not_come_in_bursts() -> None:
    one = book(bfd())
    one.stop(0.0)
    assert len(one.due(3.0)) == 1
    assert (one.next(3.0) or 0) >= 3.075


def test_first_the_one_that_stops_echoes() -> None:
    one = book(bfd(), session(5))
    one.stop(0.001)
    (frame,) = one.due(0.001)
    assert Ether(frame)[BFD].echo_rx_interval == 0


def test_a_vms_age_stands_still_with_it() -> None:
    one = book(bfd())
    for start in (0.1, 5.1, 10.1):
        one.stop(start)
        assert said(one, start, start + 4.99)
        one.resume(start + 5.0 - 0.001)


def test_while_it_stands_still_nothing_is_taken_in() -> None:
    one = book(bfd())
    one.stop(0.1)
    one.stop(0.2)
    one.seen(bfd(6), 0.1)
    one.seen(bfd(sta=1), 0.1)
    one.heard(bfd(back=True, sta=1), 0.1)
    assert len(one) == 1
    assert one.stopped_at == 0.1


def test_of_too_many_sessions_the_oldest_is_forgotten() -> None:
    one = book()
    for number in range(MOST_SESSIONS + 10):
        one.seen(session(number), float(number))
    one.seen(session(10), 1000.0)
    one.seen(session(5000), 1001.0)
    numbers = [entry.keepalive.number - 1 for entry in one.entries()]
    assert numbers == [*range(12, MOST_SESSIONS + 10), 10, 5000]


def test_a_vms_share_of_frames_is_bounded() -> None:
    one = book(*(session(number, 1) for number in range(MOST_SESSIONS)), session(9999, 1_000_000))
    assert min(entry.interval_s for entry in one.entries()) == LEAST_INTERVAL_S
    one.stop(0.001)
    frames = [frame for _at, frame in said(one, 0.001, 2.001)]
    assert len(frames) <= 2 * MOST_FRAMES_PER_S
    assert one.refused["too many frames per second"] > 100
    # the slow one is not a victim of the fast ones
    assert any("198.18.39.15" in name for name in one.sent)


def letter(one: KeepaliveBook, now: float) -> Any:
    return json.loads(json.dumps(export_book(one, now)))


@pytest.mark.parametrize("stopped", [False, True])
def test_a_book_arrives_as_it_left(stopped: bool) -> None:
    one = book(bfd(), bfd(6), vrrp(), vrrp(2, interval=1), ospf(), ospf(3))
    one.seen(bfd(min_tx_interval=900_000, flags=0x20), 0.05)
    one.heard(bfd(6, back=True, min_rx_interval=400_000), 0.0)
    if stopped:
        one.stop(0.1)
    there = import_book(letter(one, 0.3), VM, 1000.3)
    assert there.stopped_at == (pytest.approx(1000.1) if stopped else None)
    assert len(there) == len(one)
    for mine, theirs in zip(one.entries(), there.entries(), strict=True):
        assert theirs.keepalive.frame == mine.keepalive.frame
        assert theirs.keepalive.key == mine.keepalive.key
        assert theirs.keepalive.at_once == mine.keepalive.at_once
        assert theirs.interval_s == mine.interval_s
        assert theirs.seen_at == pytest.approx(mine.seen_at + 1000)


def test_the_limit_goes_on_at_the_next_host() -> None:
    one = book(bfd())
    one.stop(0.1)
    there = import_book(letter(one, 6.1), VM, 500.0)
    times = [at for at, _ in said(there, 500.0, 600.0)]
    assert times[0] == 500.0
    assert 503.9 <= times[-1] < 504.0


BAD: list[tuple[str, Any]] = [
    ("stood_s", -1),
    ("stood_s", True),
    ("stood_s", "1"),
    ("stood_s", float("nan")),
    ("sessions", None),
    ("sessions", [{}]),
    ("sessions", [7]),
    ("sessions", [{}] * (MOST_SESSIONS + 1)),
]
BAD_SESSION: list[tuple[str, Any]] = [
    ("frame", None),
    ("frame", "zz"),
    ("frame", "00" * 60),
    ("frame", bfd().hex()),
    ("frame", bfd(back=True).hex()),
    ("frame", "00" * 100_000),
    ("age_s", -1),
    ("age_s", None),
    ("interval_s", 0.2),
    ("interval_s", 0.001),
    ("required_s", 1e300),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_letter_that_is_wrong(name: str, value: object) -> None:
    raw = letter(book(bfd()), 0.1) | {name: value}
    with pytest.raises(PeerError):
        import_book(raw, VM, 0.0)


@pytest.mark.parametrize(("name", "value"), BAD_SESSION)
def test_a_session_in_it_that_is_wrong(name: str, value: object) -> None:
    raw = letter(book(bfd()), 0.1)
    raw["sessions"][0][name] = value
    with pytest.raises(PeerError):
        import_book(raw, VM, 0.0)


def test_another_vms_frames_are_not_sent() -> None:
    with pytest.raises(PeerError, match="none of this VM's"):
        import_book(letter(book(bfd()), 0.1), PEER, 0.0)
    with pytest.raises(PeerError, match="no object"):
        import_book([], VM, 0.0)
