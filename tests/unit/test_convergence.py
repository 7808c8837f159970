"""Decisions worked out by hand."""

from dataclasses import replace

import pytest

from vmnet import convergence
from vmnet.convergence import Looks
from vmnet.hypervisor.events import JobProgress

MIB = 1 << 20


def job(remaining: int, dirty: int = 0, bps: int = 100 * MIB, processed: int = 0) -> JobProgress:
    return JobProgress(
        active=True,
        memory_total_bytes=1024 * MIB,
        memory_processed_bytes=processed,
        memory_remaining_bytes=remaining,
        memory_bps=bps,
        dirty_bps=dirty,
    )


def test_nothing_is_decided_without_figures() -> None:
    for nothing in (JobProgress(active=False), JobProgress(active=True), job(0, bps=0)):
        decision = convergence.decide(nothing, 1.0, 300, 1)
        assert not decision.switch and decision.poll_s > 0


def test_the_end_of_a_pass_with_little_dirtied() -> None:
    # 1 MiB left, 2 MiB dirtied since the pass began: 30 ms
    decision = convergence.decide(job(MIB, dirty=4 * MIB, processed=900 * MIB), 0.5, 300, 1)
    assert decision.switch
    assert decision.expected_ms == pytest.approx(30)


def test_it_waits_for_the_tail_although_it_would_fit() -> None:
    # 10 MiB left would take 100 ms, less than allowed; but the pass runs for nothing: go on
    decision = convergence.decide(job(10 * MIB, dirty=MIB, processed=900 * MIB), 0.1, 300, 1)
    assert not decision.switch and decision.expected_ms < 300


def test_a_guest_that_dirties_too_much_is_not_stopped() -> None:
    decision = convergence.decide(job(MIB, dirty=80 * MIB, processed=900 * MIB), 5.0, 300, 1)
    assert not decision.switch and decision.expected_ms > 300


def test_unknown_dirty_rate_counts_all_that_was_sent_and_allows_three_times() -> None:
    assert convergence.decide(job(MIB, processed=80 * MIB), 1.0, 300, 1).switch
    assert not convergence.decide(job(MIB, processed=95 * MIB), 1.0, 300, 1).switch


def test_where_qemu_would_stop_by_itself_we_come_first() -> None:
    slow = job(10 * MIB, bps=60 * MIB, processed=95 * MIB)  # 167 ms left; if all sent is dirty again, 1.8 s
    assert convergence.decide(slow, 1.0, 300, 100).switch
    assert not convergence.decide(slow, 1.0, 300, 1).switch


def test_the_first_pass_may_end_in_a_run_of_zeros() -> None:
    # 120 MiB at the known 75 MiB/s would be 1.6 s; as pages of zeros they go by in some 30 ms
    first, second = (replace(job(120 * MIB, bps=75 * MIB), passes=number) for number in (1, 2))
    assert convergence.decide(first, 0.5, 300, 100).poll_s == pytest.approx(120 * MIB / 4e9)
    assert convergence.decide(second, 0.5, 300, 100).poll_s == 0.25


def test_a_look_that_took_long_counts_as_time_gone() -> None:
    # 10 MiB left are 100 ms; a look of 50 ms may well be the last before the end of the pass
    left = job(10 * MIB, dirty=MIB, processed=900 * MIB)
    assert not convergence.decide(left, 0.1, 300, 1, Looks(took_s=0.005)).switch
    assert convergence.decide(left, 0.1, 300, 1, Looks(took_s=0.05)).switch


def test_after_a_pass_that_ended_unseen_what_fits_is_enough() -> None:
    fits, does_not = (job(left * MIB, dirty=MIB, processed=900 * MIB) for left in (28, 40))
    assert convergence.decide(fits, 0.1, 300, 1).fits and not convergence.decide(does_not, 0.1, 300, 1).fits
    assert convergence.decide(fits, 0.1, 300, 1, Looks(missed=1)).switch
    assert not convergence.decide(does_not, 0.1, 300, 1, Looks(missed=9)).switch


def test_a_short_pass_that_has_just_begun_is_not_taken_for_a_slow_one() -> None:
    # QEMU says 1 MiB/s, of 0.1 s in which it did nothing; the first pass went at 100 MiB/s
    begun = job(4 * MIB, dirty=MIB, bps=MIB, processed=900 * MIB)
    assert not convergence.decide(begun, 0.0, 300, 1).fits
    after = convergence.decide(begun, 0.0, 300, 1, Looks(first_pass_bps=100 * MIB))
    assert after.fits and after.expected_ms == pytest.approx(80)


def test_only_a_look_that_may_be_the_last_must_not_be_late() -> None:
    far, near = (replace(job(left * MIB), passes=2) for left in (100, 20))
    assert not convergence.decide(far, 1.0, 300, 100).near
    assert convergence.decide(near, 1.0, 300, 100).near
    never = job(20 * MIB, dirty=80 * MIB, processed=900 * MIB)
    assert not convergence.decide(never, 5.0, 300, 100).near


def test_software_emulation_is_not_made_to_go_on() -> None:
    assert convergence.qemu_downtime_ms("qemu") > convergence.qemu_downtime_ms("kvm")


def early(done_mib: int) -> JobProgress:
    """A guest of 128 MiB in its first pass, before QEMU knows its own bandwidth."""
    return JobProgress(
        active=True,
        memory_total_bytes=128 * MIB,
        memory_processed_bytes=done_mib * MIB // 2,
        memory_remaining_bytes=(128 - done_mib) * MIB,
        passes=1,
    )


@pytest.mark.parametrize(
    ("done_mib", "pass_s", "switch"),
    [
        (0, 0.01, False),  # nothing known
        (56, 0.04, False),  # 51 ms left, and QEMU will not stop yet
        (96, 0.04, True),  # 13 ms left
        (64, 0.07, True),  # 70 ms left, but soon QEMU would stop by itself
        (16, 0.07, False),  # 490 ms left: it would not
    ],
)
def test_a_small_guest_before_the_bandwidth_is_known(done_mib: int, pass_s: float, switch: bool) -> None:
    assert convergence.decide(early(done_mib), pass_s, 300, 100).switch is switch
