"""A clock that is set is noticed, one that is slewed is not."""

from dom0.dataplane.clock_step import ClockStep

MS = 1_000_000


class Clocks:
    def __init__(self) -> None:
        self.steady_ns, self.offset_ns = 5 * MS, 1_700_000_000_000 * MS

    def wall(self) -> int:
        return self.steady_ns + self.offset_ns

    def steady(self) -> int:
        self.steady_ns += 100
        return self.steady_ns


def watch() -> tuple[Clocks, ClockStep]:
    clocks = Clocks()
    return clocks, ClockStep(clocks.wall, clocks.steady)


def test_slewing_is_no_step() -> None:
    clocks, step = watch()
    for _ in range(6000):  # a minute
        clocks.steady_ns += 10 * MS
        clocks.offset_ns += 5000  # 500 us a second
        assert not step.look()


def test_a_step_either_way_is_seen_and_stays_seen() -> None:
    for by_ns in (-1000 * MS, -3 * MS, 3 * MS, 3600_000 * MS):
        clocks, step = watch()
        assert not step.look()
        clocks.offset_ns += by_ns
        assert step.look()
        assert step.look() and step.seen


def test_a_reading_that_was_held_up_is_no_step() -> None:
    clocks, step = watch()
    held_up = [True, False, False]

    def wall() -> int:
        if held_up.pop(0):
            clocks.steady_ns += 50 * MS
        return clocks.wall()

    step._wall = wall
    assert not step.look()
