"""Whatever the hypervisor reports, the guest is not stopped for longer than it may be."""

from hypothesis import given
from hypothesis import strategies as st

from vmnet import convergence
from vmnet.convergence import Looks
from vmnet.hypervisor.events import JobProgress

BYTES = st.integers(0, 1 << 42)
JOBS = st.builds(
    JobProgress,
    active=st.booleans(),
    memory_total_bytes=BYTES,
    memory_processed_bytes=BYTES,
    memory_remaining_bytes=BYTES,
    memory_bps=BYTES,
    passes=st.integers(0, 5),
    dirty_bps=BYTES,
)
PASS_S = st.floats(0, 1e5)
LIMIT_MS = st.integers(1, 60_000)
OWN_MS = st.sampled_from((1, 100))
LOOKS = st.builds(Looks, st.floats(0, 10), st.integers(0, 3), st.floats(0, 1e10))


@given(JOBS, PASS_S, LIMIT_MS, OWN_MS, LOOKS)
def test_never_above_the_limit(
    job: JobProgress, pass_s: float, limit_ms: int, own_ms: int, looks: Looks
) -> None:
    decision = convergence.decide(job, pass_s, limit_ms, own_ms, looks)
    if decision.switch:
        assert job.active and (job.memory_bps or pass_s < 0.1 or looks.first_pass_bps)
        unasked = own_ms > 1 and not job.dirty_bps  # QEMU would stop there whatever has been dirtied
        assert unasked or decision.expected_ms <= limit_ms * (1 if job.dirty_bps else 3)
        tail_s = own_ms / 1000 + 0.081 + looks.took_s
        bps = max(job.memory_bps, looks.first_pass_bps / 2)
        assert looks.missed or not job.memory_bps or job.memory_remaining_bytes / bps <= tail_s
    else:
        assert 0.001 < decision.poll_s <= 0.25
    assert decision.expected_ms >= 0


@given(JOBS, PASS_S, LIMIT_MS, LIMIT_MS, OWN_MS)
def test_who_allows_more_is_never_refused(
    job: JobProgress, pass_s: float, one_ms: int, other_ms: int, own_ms: int
) -> None:
    less, more = sorted((one_ms, other_ms))
    if convergence.decide(job, pass_s, less, own_ms).switch:
        assert convergence.decide(job, pass_s, more, own_ms).switch


@given(JOBS, PASS_S, LIMIT_MS, OWN_MS)
def test_the_next_look_comes_before_the_tail(
    job: JobProgress, pass_s: float, limit_ms: int, own_ms: int
) -> None:
    decision = convergence.decide(job, pass_s, limit_ms, own_ms)
    if not decision.switch and job.active and job.memory_total_bytes and job.memory_bps:
        until_tail_s = job.memory_remaining_bytes / job.memory_bps - own_ms / 1000 - 0.08
        assert decision.poll_s <= max(until_tail_s, 0.006)
