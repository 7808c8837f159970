"""Real-time priority: who has it, for how long, and that it is given back."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from dom0.dataplane import priority
from dom0.dataplane.priority import Hurry


def test_lasts_from_the_first_to_the_last_holder() -> None:
    async def test() -> None:
        changes: list[bool] = []
        hurry = Hurry(changes.append)
        hurry.end("nobody")
        hurry.begin("a")
        hurry.begin("a")
        hurry.begin("b")
        hurry.end("a")
        assert changes == [True]
        hurry.end("b")
        hurry.end("b")
        assert changes == [True, False]

    asyncio.run(test())


def test_nobody_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "LIMIT_S", 0.01)

    async def test() -> None:
        given_back = asyncio.Event()
        hurry = Hurry(lambda on: None if on else given_back.set())
        hurry.begin("a")
        await asyncio.wait_for(given_back.wait(), 5)
        hurry.begin("a")  # another switchover of the same
        hurry.end("a")

    asyncio.run(test())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_all_threads_and_back() -> None:
    """Also one that was started before, and one that is started meanwhile."""
    go, seen = threading.Event(), []

    def work() -> None:
        go.wait(10)
        seen.append(os.sched_getscheduler(0))

    early = threading.Thread(target=work)
    early.start()
    priority.real_time(True)
    try:
        late = threading.Thread(target=work)
        late.start()
        assert os.sched_getscheduler(0) == os.SCHED_RR
        go.set()
        early.join()
        late.join()
    finally:
        priority.real_time(False)
    assert seen == [os.SCHED_RR, os.SCHED_RR]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
