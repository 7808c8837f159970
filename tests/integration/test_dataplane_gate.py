"""The gate in the kernel: what happens to a frame in each mode, and order while it changes."""

import os
import time

import pytest
from dataplane_kit import Host, Packets, Tap, Traffic, frame, isolated, numbers, tc

from dom0.dataplane import bpf_syscall, classifier, netdev, pump, tcx
from dom0.dataplane.bpf_asm import Program
from dom0.dataplane.classifier import Direction, detach, is_attached
from dom0.dataplane.gate import Bounds, Gate
from dom0.dataplane.gate_program import MARK, Mode, Word, finish
from dom0.dataplane.park import NO_OFFLOAD, Park
from dom0.dataplane.sender import Sender

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
WIDE = Bounds(100_000, 1 << 28)


@pytest.fixture(autouse=True, params=["tcx", "clsact"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How programs are attached; kernels before 6.6 know the second alone."""
    if request.param == "clsact":
        monkeypatch.setattr("dom0.dataplane.tcx.works", lambda: False)
    elif not tcx.works():
        pytest.skip("this kernel has no tcx (Linux 6.6)")
    return str(request.param)


class Bench:
    """A guest's tap with a gate, a park, and a tap that stands for the tunnel. Enters its namespace for good."""

    def __init__(self, bounds: Bounds = WIDE, mode: Mode = Mode.PASS) -> None:
        Host().__enter__()
        self.tap, self.exit = Tap("tap0"), Tap("exit0", 300_000)
        self.park = Park("park0", 100_000, 1500)
        self.gate = Gate("tap0", self.park.ifindex, self.exit.index, bounds, mode)
        self.wire = Packets("tap0")
        self.to_exit, self.to_tap = Sender("exit0"), Sender("tap0", MARK)

    def send(self, first: int, last: int) -> None:
        for number in range(first, last):
            self.wire.send(frame(number))


@isolated()
def test_each_mode() -> None:
    bench = Bench()
    gate = bench.gate
    bench.send(0, 3)
    gate.mode = Mode.BLOCK
    bench.send(3, 5)
    gate.mode = Mode.HOLD
    bench.send(5, 9)
    gate.mode = Mode.DIVERT
    bench.send(9, 11)
    assert numbers(bench.tap.drain()) == [0, 1, 2]
    assert numbers(bench.exit.drain()) == [9, 10]
    counts = gate.counts()
    assert (counts.passed, counts.blocked, counts.parked, counts.diverted, counts.overflow) == (3, 2, 4, 2, 0)
    gate.mode = Mode.CLOSE
    bench.send(11, 13)  # four wait: these queue behind them
    assert pump.empty(gate, bench.park, bench.to_exit).sent == 6
    bench.send(13, 15)  # none wait: straight on
    assert numbers(bench.exit.drain()) == [5, 6, 7, 8, 11, 12, 13, 14]
    assert bench.park.read() is None
    assert gate.get(Word.PARKED_BYTES) == gate.get(Word.RELEASED_BYTES) == 6 * 60


@isolated()
def test_what_a_program_of_the_host_sends_by_the_park_is_not_among_what_waits() -> None:
    """A DHCP client or an LLDP daemon that sends on every interface."""
    bench = Bench(mode=Mode.HOLD)
    stranger = Packets("park0")
    bench.send(0, 2)
    stranger.send(frame(100))
    bench.send(2, 4)
    stranger.send(frame(101))
    bench.gate.mode = Mode.CLOSE
    assert pump.empty(bench.gate, bench.park, bench.to_exit) == pump.Pumped(4, 0, 0)
    assert numbers(bench.exit.drain()) == [0, 1, 2, 3]
    assert bench.gate.get(Word.RELEASED) == bench.gate.get(Word.PARKED)


@isolated()
def test_close_without_an_exit_goes_on_to_the_guest() -> None:
    bench = Bench(mode=Mode.HOLD)
    bench.gate.set(Word.EXIT_IFINDEX, 0)
    bench.send(0, 5)
    bench.gate.mode = Mode.CLOSE
    assert pump.empty(bench.gate, bench.park, bench.to_tap).sent == 5
    bench.send(5, 8)
    assert numbers(bench.tap.drain()) == list(range(8))


@isolated()
def test_marked_frames_pass_in_every_mode_within_the_bounds() -> None:
    bench = Bench(Bounds(3, 10_000))
    for mode in Mode:
        bench.gate.mode = mode
        bench.to_tap.send(NO_OFFLOAD + frame(mode))
    assert numbers(bench.tap.drain()) == list(Mode)
    bench.gate.set(Word.BOUNDED, 1)
    with pytest.raises(OSError, match="No buffer space"):
        bench.to_tap.send(NO_OFFLOAD + frame(9))
    assert bench.tap.drain() == []
    assert bench.gate.counts().overflow == 1


@pytest.mark.parametrize(
    ("bounds", "fit"), [(Bounds(10, 1 << 20), 10), (Bounds(1000, 10 * 60), 10), (Bounds(0, 0), 0)]
)
@isolated()
def test_the_park_is_bounded_and_what_is_over_is_counted(bounds: Bounds, fit: int) -> None:
    bench = Bench(bounds, Mode.HOLD)
    bench.send(0, 25)
    counts = bench.gate.counts()
    assert (counts.parked, counts.overflow) == (fit, 25 - fit)
    bench.gate.mode = Mode.CLOSE
    found = pump.empty(bench.gate, bench.park, bench.to_exit)
    assert (found.sent, found.missing) == (fit, 0)
    bench.gate.mode = Mode.HOLD  # room again
    bench.send(25, 25 + fit)
    assert bench.gate.counts().parked == 2 * fit
    bench.gate.mode = Mode.CLOSE
    pump.empty(bench.gate, bench.park, bench.to_exit)
    assert numbers(bench.exit.drain()) == [*range(fit), *range(25, 25 + fit)]


@isolated()
def test_what_the_parks_ring_dropped_is_said_and_blocks_nothing() -> None:
    bench = Bench(mode=Mode.HOLD)
    os.system("ip link set park0 txqueuelen 4")
    bench.send(0, 10)
    bench.gate.mode = Mode.CLOSE
    found = pump.empty(bench.gate, bench.park, bench.to_exit)
    assert (found.sent, found.missing) == (4, 6)
    bench.send(10, 12)
    assert numbers(bench.exit.drain()) == [0, 1, 2, 3, 10, 11]


@isolated()
def test_a_device_that_refuses_frames_does_not_keep_the_rest_waiting() -> None:
    bench = Bench(Bounds(4, 10_000), Mode.HOLD)
    bench.gate.set(Word.BOUNDED, 1)
    bench.gate.set(Word.EXIT_IFINDEX, 0)
    bench.to_tap.send(NO_OFFLOAD + frame(0))
    bench.to_tap.send(NO_OFFLOAD + frame(1))
    bench.send(2, 6)
    bench.gate.mode = Mode.CLOSE
    found = pump.empty(bench.gate, bench.park, bench.to_tap)
    assert (found.sent, found.missing) == (2, 2)
    bench.send(6, 8)
    assert numbers(bench.tap.drain()) == [0, 1, 2, 3, 6, 7]


@pytest.mark.parametrize("senders", [1, 2])
@isolated()
def test_order_while_frames_come_and_the_mode_changes(senders: int) -> None:
    """Many times over: held, released while more come, diverted. All arrive, once, each stream in order."""
    bench = Bench(mode=Mode.HOLD)
    traffic = [
        Traffic(Packets("tap0").send, 20_000 // senders, lambda number, nth=nth: [frame(number, nth)])
        for nth in range(senders)
    ]
    rounds, sent = 12, 0
    for _ in range(rounds):
        bench.gate.mode = Mode.HOLD
        time.sleep(0.02)
        bench.gate.mode = Mode.CLOSE
        found = pump.empty(bench.gate, bench.park, bench.to_exit)
        bench.gate.mode = Mode.DIVERT
        assert found.missing == 0
        sent += found.sent
        time.sleep(0.01)
    totals = [one.stop() for one in traffic]
    counts = bench.gate.counts()
    assert (counts.parked, counts.diverted) == (sent, sum(totals) - sent)
    arrived = bench.exit.drain()
    for nth, total in enumerate(totals):
        assert numbers(arrived, nth) == list(range(total))
    assert sent > 100 and counts.diverted > 100


@isolated()
def test_off_again_nothing_is_left() -> None:
    bench = Bench()
    assert is_attached("tap0", Direction.EGRESS)
    bench.gate.close()
    assert not is_attached("tap0", Direction.EGRESS)
    bench.send(0, 2)
    assert numbers(bench.tap.drain()) == [0, 1]
    detach("tap0", Direction.EGRESS)  # twice, and where nothing is: nothing happens
    detach("tap0", Direction.INGRESS)
    detach("none0", Direction.EGRESS)


@isolated()
def test_other_programs_on_the_tap_stay() -> None:
    bench = Bench()
    classifier.make_ready("tap0")
    tc("qdisc", "replace", "dev", "tap0", "clsact")
    tc(
        "filter",
        "add",
        "dev",
        "tap0",
        "egress",
        "prio",
        "7",
        "protocol",
        "ip",
        "u32",
        "match",
        "u32",
        "0",
        "0",
    )
    bench.gate.close()
    assert "u32" in tc("filter", "show", "dev", "tap0", "egress")


@isolated()
def test_a_tap_that_is_gone_hurts_nobody() -> None:
    bench = Bench()
    os.close(bench.tap.fd)
    bench.gate.mode = Mode.HOLD
    bench.gate.close()


@isolated()
def test_what_it_costs() -> None:
    """Informational: printed, not judged."""
    bench = Bench()

    def rate() -> float:
        count, one = 20_000, frame(0)
        began = time.perf_counter()
        for _ in range(count):
            bench.wire.send(one)
        return count / (time.perf_counter() - began)

    rate()
    gated = rate()
    began = time.perf_counter()
    for _ in range(10_000):
        bench.gate.mode = Mode.HOLD
        bench.gate.mode = Mode.PASS
    switch_us = (time.perf_counter() - began) / 20_000 * 1e6
    bench.gate.close()
    free = rate()
    print(f"\nmode switch {switch_us:.2f} us; frames/s in PASS {gated:,.0f}, without a gate {free:,.0f}")


@isolated()
def test_a_change_of_mode_is_seen_whole() -> None:
    """Neither mode lets a frame through to the guest; a word written in pieces does, for an instant."""
    bench = Bench(mode=Mode.HOLD)
    traffic = Traffic(Packets("tap0").send, 40_000)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        for _ in range(1000):
            bench.gate.mode = Mode.BLOCK
            bench.gate.mode = Mode.HOLD
    total = traffic.stop()
    counts = bench.gate.counts()
    assert counts.passed == 0
    assert counts.parked + counts.blocked == total


LIMIT = ("qdisc", "add", "dev", "tap0", "ingress")
"""As libvirt makes one for ``<outbound>``, and Open vSwitch for its policing."""

UNLIMIT = ("qdisc", "del", "dev", "tap0", "handle", "ffff:", "parent", "ffff:fff1")


@isolated()
def test_a_limit_of_what_the_guest_sends_and_the_gate(way: str) -> None:
    """Before 6.6 a clsact cannot be beside it. The kernel then put the gate where the guest's own frames come in."""
    Host().__enter__()
    tap = Tap("tap0")
    tc(*LIMIT)
    park = Park("park0", 100, 1500)
    if way == "clsact":
        assert "domiftune" in classifier.hindrance("tap0")
        with pytest.raises(OSError, match="a qdisc 'ingress'"):
            Gate("tap0", park.ifindex, 0, WIDE, Mode.PASS)
        assert not any(is_attached("tap0", one) for one in Direction)
        assert tc("filter", "show", "dev", "tap0", "ingress") == ""
        tc(*UNLIMIT)  # the kernel has a qdisc of its own there now, and says nothing of it
    assert classifier.hindrance("tap0") == "" and classifier.is_ready("tap0") is (way != "clsact")
    gate = Gate("tap0", park.ifindex, 0, WIDE, Mode.BLOCK)
    assert classifier.is_ready("tap0")
    assert is_attached("tap0", Direction.EGRESS) and not is_attached("tap0", Direction.INGRESS)
    wire = Packets("tap0")
    wire.send(frame(0))
    assert gate.counts().blocked == 1 and numbers(tap.drain()) == []


@isolated()
def test_others_may_limit_and_unlimit_a_tap_with_a_gate(way: str) -> None:
    """Open vSwitch takes the qdisc away when its policing ends, whosever it is."""
    bench = Bench(mode=Mode.BLOCK)
    if way == "clsact":
        tc(*UNLIMIT)
        assert not is_attached("tap0", Direction.EGRESS)
        return
    tc(*LIMIT)
    tc(*UNLIMIT)
    assert is_attached("tap0", Direction.EGRESS)
    bench.send(0, 1)
    assert bench.gate.counts().blocked == 1


@isolated()
def test_a_gate_that_was_taken_away_is_put_back_and_counted(way: str) -> None:
    bench = Bench(mode=Mode.BLOCK)
    bench.gate.verify()
    assert bench.gate.counts().taken_away == 0
    if way == "clsact":
        tc(*UNLIMIT)
    else:
        detach("tap0", Direction.EGRESS)
    bench.send(0, 1)
    bench.gate.verify()
    bench.send(1, 2)
    counts = bench.gate.counts()
    assert (counts.taken_away, counts.blocked, numbers(bench.tap.drain())) == (1, 1, [0])
    os.close(bench.tap.fd)
    bench.gate.verify()
    assert bench.gate.counts().taken_away == 1, "a tap that has gone took its gate along"


@isolated()
def test_one_gate_in_place_of_another_and_no_other_program_goes(way: str) -> None:
    bench = Bench()
    second = Gate("tap0", bench.park.ifindex, bench.exit.index, WIDE, Mode.BLOCK)
    bench.send(0, 1)
    assert (bench.gate.counts().passed, second.counts().blocked) == (0, 1)
    if way == "tcx":
        other = bpf_syscall.load_classifier(finished_program(), "somebody")
        index = netdev.index_of("tap0")
        tcx.attach(index, tcx.EGRESS, other, "somebody")
        third = Gate("tap0", bench.park.ifindex, bench.exit.index, WIDE, Mode.BLOCK)
        bench.send(1, 2)
        assert third.counts().blocked == 1
        third.close()
        assert tcx.is_attached(index, tcx.EGRESS, "somebody")
    assert not is_attached("tap0", Direction.EGRESS) or way == "clsact"


def finished_program() -> bytes:
    """Lets everything pass."""
    code = Program()
    finish(code, -1)
    return code.assemble()
