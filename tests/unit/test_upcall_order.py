"""The second frame of a flow waits until the first has left the switch, and not for ever."""

import socket
from collections.abc import Iterator

import pytest

from dom0.dataplane.flow_key import flow_key
from dom0.dataplane.park import NO_OFFLOAD
from dom0.dataplane.upcall_order import LIMIT_S, UpcallOrder

GUEST = bytes.fromhex("525400000001")


def frame(flow: int, number: int = 0) -> bytes:
    return NO_OFFLOAD + bytes([2, 0, 0, 0, 0, flow]) + GUEST + b"\x88\xb6" + bytes([number]) * 46


class Switch:
    """What is handed to it leaves when :meth:`let_out` says so. As an exit of a park, and as what is seen behind the switch."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self._left: set[bytes] = set()
        self._awake, self._waker = socket.socketpair()
        self.fd = self._awake.fileno()

    def send(self, one: bytes) -> None:
        self.got.append(one)

    def let_out(self, *flows: int) -> None:
        self._left |= {flow_key(frame(flow)[len(NO_OFFLOAD) :]) for flow in flows}
        self._waker.send(b"x")

    def seen(self) -> set[bytes]:
        found, self._left = self._left, set()
        if found:
            self._awake.recv(4096)
        return found

    def close(self) -> None:
        self._awake.close()
        self._waker.close()


class Clock:
    """A second passes at each look."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s


@pytest.fixture
def switch() -> Iterator[Switch]:
    made = Switch()
    yield made
    made.close()


def order(switch: Switch, step_s: float = 0.0) -> UpcallOrder:
    return UpcallOrder(switch, switch, clock=Clock(step_s))  # type: ignore[arg-type]


def test_the_first_of_each_flow_does_not_wait(switch: Switch) -> None:
    out = order(switch)
    for flow in range(5):
        out.send(frame(flow))
    assert switch.got == [frame(flow) for flow in range(5)]


def test_the_second_goes_when_the_first_has_left(switch: Switch) -> None:
    out = order(switch)
    out.send(frame(1))
    out.send(frame(2))
    switch.let_out(1, 2)
    for number in (1, 2, 3):
        out.send(frame(1, number))
        out.send(frame(2, number))
    assert len(switch.got) == 8
    assert not out.overtaken()


def test_it_waits_until_then(switch: Switch) -> None:
    """With a clock that stands still nothing but the switch ends the wait."""
    out = order(switch)
    out.send(frame(1))
    switch.let_out(2)  # of another flow
    seen = switch.seen
    calls: list[int] = []

    def later() -> set[bytes]:
        calls.append(len(switch.got))
        if len(calls) == 3:
            switch.let_out(1)
        return seen()

    switch.seen = later  # type: ignore[method-assign]
    out.send(frame(1, 1))
    assert calls == [1, 1, 1]
    assert switch.got == [frame(1), frame(1, 1)]


def test_all_waits_together_have_a_limit(switch: Switch) -> None:
    out = order(switch, LIMIT_S / 2)
    for flow in range(20):
        out.send(frame(flow))
    for flow in range(20):
        out.send(frame(flow, 1))
    assert len(switch.got) == 40


def test_a_flow_that_the_switch_drops_has_no_order(switch: Switch) -> None:
    out = order(switch, LIMIT_S)
    out.send(frame(1))
    out.send(frame(1, 1))
    assert not out.overtaken()


def test_a_flow_that_left_too_late_may_have_been_overtaken(switch: Switch) -> None:
    out = order(switch, LIMIT_S)
    out.send(frame(1))
    out.send(frame(1, 1))
    switch.let_out(1)
    assert out.overtaken()


def test_it_is_known_as_late_whoever_looked_then(switch: Switch) -> None:
    out = order(switch, LIMIT_S)
    for flow in (1, 2):
        out.send(frame(flow))
    out.send(frame(1, 1))
    switch.let_out(1)
    out.send(frame(2, 1))  # looks as well
    assert out.overtaken()


def test_in_the_end_all_first_frames_have_left_or_are_known_as_unsure(switch: Switch) -> None:
    out = order(switch, LIMIT_S / 10)
    out.send(frame(1))
    out.send(frame(2))
    switch.let_out(1)
    out.settle()
    assert out.unsure, "nobody has seen 2 leave"
    assert not out.overtaken()
    switch.let_out(2)
    assert out.overtaken()


def test_a_switch_that_is_quick_leaves_nothing_unsure(switch: Switch) -> None:
    out = order(switch)
    out.send(frame(1))
    switch.let_out(1)
    out.settle()
    assert not out.unsure
