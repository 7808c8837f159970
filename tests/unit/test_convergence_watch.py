"""A host whose libvirt answers slowly: no look comes upon the end of a pass."""

import asyncio
from typing import Any

from dom0.convergence_watch import ConvergenceWatch
from vmnet.hypervisor.events import JobProgress

MIB = 1 << 20


class Answers:
    """libvirt's answers, one after the other; the passes begin with them."""

    def __init__(self, *jobs: JobProgress) -> None:
        self.left = list(jobs)

    async def progress(self, _vm: str) -> JobProgress:
        return self.left.pop(0)

    async def set_max_downtime(self, _vm: str, _downtime_ms: int) -> None: ...


def at(passes: int, remaining_mib: int) -> JobProgress:
    """At 100 MiB/s, of a guest that dirties 1 MiB/s."""
    return JobProgress(
        active=True,
        passes=passes,
        memory_total_bytes=1024 * MIB,
        memory_processed_bytes=900 * MIB,
        memory_remaining_bytes=remaining_mib * MIB,
        memory_bps=100 * MIB,
        dirty_bps=MIB,
    )


def passes_missed(answers: Answers) -> int:
    """When it says that the guest is to be stopped."""
    said: list[dict[str, Any]] = []
    watch = ConvergenceWatch(
        answers,  # type: ignore[arg-type]
        "vm1",
        "kvm",
        300,
        lambda _event, **fields: said.append(fields),
        lambda: None,
    )
    watch.pass_began()
    asyncio.run(asyncio.wait_for(watch.until_switch(), 5))
    return int(said[-1]["passes_missed"])


def test_a_pass_that_ended_unseen_is_enough() -> None:
    answers = Answers(at(2, 12), at(3, 40), at(3, 25), at(3, 1))
    assert passes_missed(answers) == 1
    assert answers.left == [at(3, 1)], "25 MiB take 250 ms: that is little enough"


def test_a_pass_in_which_too_much_was_left_is_none_missed() -> None:
    answers = Answers(at(2, 40), at(3, 12), at(3, 1))
    assert passes_missed(answers) == 0 and answers.left == []
