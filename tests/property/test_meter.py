"""The meter against a slow, obvious one, on random loss, duplication and reordering."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vmnet.probe import meter, wire


@st.composite
def arrivals(draw):
    """(sent, seqs in order of arrival): some lost, some twice or more, some out of order, some never sent."""
    sent = draw(st.integers(0, 60))
    copies = draw(st.lists(st.integers(0, 3), min_size=sent, max_size=sent))
    seqs = [seq for seq, n in enumerate(copies) for _ in range(n)] + draw(
        st.lists(st.integers(60, 70), max_size=3)
    )
    return sent, draw(st.permutations(seqs)) if draw(st.booleans()) else seqs


def slow_count(seqs, sent):
    real = [s for s in seqs if s < sent]
    firsts = [s for i, s in enumerate(real) if s not in real[:i]]
    late = [s for i, s in enumerate(firsts) if any(other > s for other in firsts[:i])]
    lost = [s for s in range(sent) if s not in real]
    return len(firsts), len(real) - len(firsts), len(late), lost, len(seqs) - len(real)


@given(arrivals())
def test_counts(case):
    sent, seqs = case
    found = meter.count(seqs, sent)
    received, duplicated, reordered, lost, strange = slow_count(seqs, sent)
    assert (found.received, found.duplicated, found.reordered) == (received, duplicated, reordered)
    assert found.lost == len(lost) and found.strange == strange
    assert [s for first, last in found.missing for s in range(first, last + 1)] == lost


@given(st.binary(max_size=50).map(lambda b: bytes(v & 1 for v in b)))
def test_missing_ranges_are_the_zeros_and_never_touch(seen):
    ranges = meter.missing_ranges(seen)
    assert [i for first, last in ranges for i in range(first, last + 1)] == [
        i for i, v in enumerate(seen) if not v
    ]
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@given(st.lists(st.integers(0, 1000), max_size=30), st.none() | st.integers(0, 1200))
def test_longest_gap(times, end):
    inner = sorted(times)
    marks = [*inner, end] if inner and end is not None and end > inner[-1] else inner
    expected = max((b - a for a, b in pairwise(marks)), default=0)
    gap = meter.longest_gap(times, end)
    assert gap.ns == expected
    assert gap.ns == 0 or gap.begin_ns in times


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_only_what_was_rolled_back_is_forgotten(seqs, at, length):
    """The guest forgets ``length`` arrivals before position ``at``: what it acknowledged then tells how many are gone."""
    before, lost, after = seqs[: max(0, at - length)], seqs[max(0, at - length) : at], seqs[at:]
    acknowledged, have = [], set()
    for seq in before + lost:
        have.add(seq)
        acknowledged.append((max(have), len(have)))
    kept = set(before + after)
    missing = meter.missing_ranges(bytes(seq in kept for seq in range(31)))
    gone = meter.forgotten(acknowledged, missing)
    assert gone <= len(set(lost) - kept)
    assert gone >= len(set(before + lost) - kept) - sum(s not in have and s in kept for s in range(31))


@given(st.lists(st.integers(0, 9), max_size=30))
def test_first_arrivals(seqs):
    found = meter.first_arrivals(seqs, list(range(len(seqs))))
    assert list(found) == [i for i, s in enumerate(seqs) if s not in seqs[:i]]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.floats(0.1, 100))
def test_percentile(values, percent):
    found = meter.percentile(values, percent)
    assert found in values
    assert sum(v <= found for v in values) >= len(values) * percent / 100 - 1e-6


@given(st.binary(max_size=200))
def test_decoders_take_any_bytes(message):
    reply = wire.decode_control(message)
    if reply:
        wire.decode_report(reply)
        wire.decode_ranges(reply)
        wire.words(reply, 3)
    wire.decode_tcp_answer(message)
    wire.decode_tcp_trailer(message)
    whole = message[: len(message) // wire.DATA_LEN * wire.DATA_LEN]
    meter.decode(whole, range(len(whole) // wire.DATA_LEN), 0, [])
