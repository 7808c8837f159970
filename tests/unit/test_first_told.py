"""What a session tells for the first time, and what again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dom0.fib.first_told import FirstTold


@given(st.lists(st.lists(st.binary(min_size=1, max_size=24), max_size=20), max_size=20))
def test_again_is_never_the_first_time(told: list[list[bytes]]) -> None:
    first, known = FirstTold(), set[bytes]()
    for keys in told:
        if first.add(keys):
            assert set(keys) - known
        known |= set(keys)
        assert not first.add(keys)


def test_of_a_full_table_nearly_everything_is_told_for_the_first_time() -> None:
    first = FirstTold()
    count = 200_000
    missed = sum(not first.add([number.to_bytes(8, "big")]) for number in range(count))
    assert missed < count / 50
