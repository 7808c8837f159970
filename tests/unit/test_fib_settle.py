"""When a table without an end mark counts as whole; what waits for a second try."""

from __future__ import annotations

import errno
import itertools

from hypothesis import given
from hypothesis import strategies as st

from dom0.fib import settle
from dom0.fib.settings import FibSettings
from dom0.fib.waiting import MOST, MOST_BYTES, Waiting, may_pass

SETTINGS = FibSettings()


def alive(quiet: settle.Quiet, since: float, until: float) -> settle.Quiet:
    for tenth in range(int(since * 10), int(until * 10) + 1):
        quiet = settle.looked(quiet, tenth / 10, 0.5, SETTINGS)
    return quiet


def test_the_first_table_is_whole_when_it_is_quiet() -> None:
    quiet = settle.heard(settle.connected(0, False), 1.0)
    quiet = alive(quiet, 0, 4.1)
    assert not settle.whole(quiet, 3.9, SETTINGS)
    assert settle.whole(quiet, 4.1, SETTINGS)


def test_what_replaces_another_waits_longer() -> None:
    quiet = alive(settle.heard(settle.connected(0, True), 1.0), 0, 30)
    assert not settle.whole(quiet, 29.9, SETTINGS)
    assert settle.whole(quiet, 30, SETTINGS)


def test_quiet_because_the_link_is_dead_is_not_quiet() -> None:
    quiet = alive(settle.heard(settle.connected(0, False), 0.5), 0, 1)
    for tenth in range(10, 100):
        quiet = settle.looked(quiet, tenth / 10, tenth / 10 - 0.5, SETTINGS)
    assert not settle.whole(quiet, 9.9, SETTINGS)
    quiet = alive(quiet, 10, 30)
    # dead for 9 s: TCP's next try may come 9 s after the last one, and only then is it quiet
    assert not settle.whole(alive(quiet, 10, 20), 20, SETTINGS)
    assert settle.whole(quiet, 30, SETTINGS)


@given(st.lists(st.tuples(st.floats(0.01, 5), st.booleans(), st.booleans()), max_size=60), st.booleans())
def test_never_whole_within_the_settling_time(events: list[tuple[float, bool, bool]], replaces: bool) -> None:
    now = last_message = last_alive = 0.0
    quiet = settle.connected(now, replaces)
    for step, heard, living in events:
        now += step
        if living:
            last_alive = now
        quiet = settle.looked(quiet, now, now - last_alive, SETTINGS)
        if heard:
            last_message, quiet = now, settle.heard(quiet, now)
        if settle.whole(quiet, now, SETTINGS):
            assert now - last_message >= SETTINGS.settle_s - 1e-6
            assert now - last_alive <= SETTINGS.alive_s + 1e-6
            assert not replaces or now >= SETTINGS.restart_s


def test_what_was_said_later_is_what_counts() -> None:
    waiting = Waiting()
    waiting.add(b"a", b"old", 0)
    waiting.add(b"b", b"other", 0)
    waiting.forget(b"a")
    assert waiting.due(0.01) == []
    assert waiting.due(1) == [(b"b", b"other")]
    assert len(waiting) == 0


def test_tries_grow_rarer_until_something_changes() -> None:
    waiting = Waiting()
    waiting.add(b"a", b"x", 0)
    times = []
    for hundredth in range(2000):
        for key, message in waiting.due(hundredth / 100):
            times.append(hundredth / 100)
            waiting.add(key, message, hundredth / 100)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert len(times) < 15
    waiting.hurry(20)
    assert waiting.due(20.1)


def test_memory_is_bounded() -> None:
    waiting = Waiting()
    for number in range(MOST + 5):
        waiting.add(number.to_bytes(4, "big"), b"", 0)
    assert len(waiting) == MOST
    assert waiting.lost == 5
    large = Waiting()
    for number in range(300):
        large.add(number.to_bytes(4, "big"), bytes(65000), 0)
    assert len(large) * 65000 <= MOST_BYTES
    assert large.lost == 300 - len(large)


def test_an_absent_interface_may_come() -> None:
    assert may_pass(errno.ENODEV)
    assert not may_pass(errno.EPERM)
