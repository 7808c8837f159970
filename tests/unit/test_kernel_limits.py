"""The longest queue that a kernel gives, and who is told when that is less than was asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.dataplane.kernel_limits import SHORTEST_QUEUE, KernelLimits, longest
from dom0.preflight import _notes


@given(limit=st.integers(SHORTEST_QUEUE, 1_000_000), wanted=st.integers(1, 1_000_000))
def test_the_longest_is_what_was_asked_for_or_the_kernels_limit(limit: int, wanted: int) -> None:
    asked: list[int] = []

    def takes(packets: int) -> bool:
        asked.append(packets)
        return packets <= limit

    assert longest(wanted, takes) == min(limit, wanted)
    assert len(asked) <= 21


def test_nothing_is_said_of_a_kernel_that_gives_what_is_asked() -> None:
    assert KernelLimits(262_144, 262_144).note("b") == ""


def test_a_shorter_queue_is_said_with_host_and_length() -> None:
    limits = KernelLimits(32_767, 262_144)
    assert limits.short
    assert limits.note("b") == "b holds at most 32767 packets an interface: its kernel makes no longer queue"


@pytest.mark.parametrize("said", [None, 7, "a note", {"a": 1}, [None, 3, ["x"]]])
def test_a_peers_notes_that_are_none_are_left_out(said: object) -> None:
    assert _notes(said) == []


def test_a_peers_notes_are_few_short_and_printable() -> None:
    (first, *others) = _notes(["\x1b[31mred\n" + "x" * 500] * 50)
    assert first.startswith("[31mredx") and len(first) == 200
    assert len(others) == 7
