"""What the guest never took from a tap of several queues, against a slow model of each queue's ring and reader."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from dom0.dataplane import stranded_queues
from dom0.dataplane.frames import NOT_COPIED, RecordedFrame
from dom0.dataplane.stranded import GUARD_NS, READ_AHEAD, select
from dom0.dataplane.stranded_queues import select_of_queues

STOP_NS = 1_000_000_000
MS = 1_000_000


@dataclass
class History:
    """Frames of all queues in the order of their arrival; which of them the guest has got, and how many are unread."""

    times: list[int]
    delivered: set[int]
    unread: int
    empty_ns: int

    def newest(self) -> list[RecordedFrame]:
        return [RecordedFrame(at, str(nth).encode()) for nth, at in enumerate(self.times)][::-1]


@st.composite
def several_queues(draw: st.DrawFn, queues: int = 3) -> History:
    """Each queue's reader stands still from a moment of its own: what came since the tap was last empty may be read or not."""
    times = sorted(
        STOP_NS + at * MS // 4 for at in draw(st.lists(st.integers(-2000, 40), max_size=60, unique=True))
    )
    queue_of = [draw(st.integers(0, queues - 1)) for _ in times]
    empty_ns = STOP_NS - draw(st.integers(0, 500)) * MS
    sure_ns = min(empty_ns, STOP_NS - GUARD_NS)
    delivered, unread = set[int](), 0
    for queue in range(queues):
        own = [nth for nth, of in enumerate(queue_of) if of == queue]
        sure = sum(times[nth] < sure_ns for nth in own)
        ran = sum(times[nth] <= STOP_NS for nth in own)
        read = draw(st.integers(sure, ran))
        ahead = draw(st.integers(0, min(READ_AHEAD, read - sure)))
        delivered.update(own[: read - ahead])
        unread += len(own) - read
    return History(times, delivered, unread, empty_ns)


@given(several_queues())
def test_nothing_is_lost_and_what_may_come_twice_is_counted(history: History) -> None:
    found = select_of_queues(history.newest(), history.unread, 3, STOP_NS, history.empty_ns)
    sent = [int(one) for one in found.frames]
    assert sent == sorted(set(sent))
    assert set(range(len(history.times))) - history.delivered <= set(sent)
    assert len(history.delivered & set(sent)) <= found.possible_duplicates
    assert found.missing == 0


def test_a_queue_that_hangs_alone_keeps_older_frames_than_another_one_has_read() -> None:
    hung = [RecordedFrame(STOP_NS - 300 * MS + nth * MS, b"hung%d" % nth) for nth in range(40)]
    read = [RecordedFrame(STOP_NS - 200 * MS + nth * MS, b"read%d" % nth) for nth in range(180)]
    newest = sorted([*hung, *read], key=lambda one: one.time_ns, reverse=True)
    as_if_one = select(newest, 40, STOP_NS, STOP_NS - 301 * MS)
    assert not {one.data for one in hung} <= set(as_if_one.frames), "why the queues are told apart"
    found = select_of_queues(newest, 40, 2, STOP_NS, STOP_NS - 301 * MS)
    assert {one.data for one in hung} <= set(found.frames)
    assert (found.possible_duplicates, found.missing) == (180, 0)


def test_what_a_copy_that_is_too_short_may_have_forgotten_is_missing() -> None:
    newest = [RecordedFrame(STOP_NS - nth * MS, b"%d" % nth) for nth in range(100)]
    assert select_of_queues(newest, 10, 2, STOP_NS, 0, whole=False).missing == 10
    assert select_of_queues(newest, 10, 2, STOP_NS, 0, whole=True).missing == 0
    assert select_of_queues(newest, 10, 2, STOP_NS, STOP_NS - 90 * MS, whole=False).missing == 0
    assert select_of_queues(newest[:4], 10, 2, STOP_NS, 0).missing == 6


def test_frames_that_were_not_copied_may_be_among_the_unread() -> None:
    newest = [RecordedFrame(STOP_NS, b"a"), NOT_COPIED, NOT_COPIED, RecordedFrame(STOP_NS - 100 * MS, b"b")]
    assert select_of_queues(newest, 1, 2, STOP_NS).missing == 2


def test_no_more_come_twice_than_the_limit_says() -> None:
    most = stranded_queues.MOST_IN_DOUBT
    newest = [RecordedFrame(STOP_NS - nth, b"x") for nth in range(most + 100)]
    found = select_of_queues(newest, 5, 2, STOP_NS)
    assert len(found.frames) == most + 5
    assert found.missing == 5, "the unread ones may be older"


@given(
    st.lists(
        st.builds(RecordedFrame, st.integers(0, 2 * STOP_NS), st.binary(min_size=1)) | st.just(NOT_COPIED)
    ),
    st.integers(-3, 60),
)
def test_what_is_unread_follows_or_is_missing(newest: list[RecordedFrame], unread: int) -> None:
    found = select_of_queues(newest, unread, 2, STOP_NS)
    assert unread <= len(found.frames) + found.missing
    copied = [one.data for one in newest if one is not NOT_COPIED]
    assert list(found.frames) == copied[: len(found.frames)][::-1]
