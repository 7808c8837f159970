"""Real-time priority: who has it, for how long, and that it is given back."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from dom0.dataplane import priority
from dom0.dataplane.priority import Hurry


def test_lasts_from_the_first_to_the_last_holder() -> None:
    async def test() -> None:
        changes: list[tuple[int, bool]] = []
        hurry = Hurry(lambda process, on: changes.append((process, on)))
        hurry.end("nobody", 1)
        hurry.begin("a", 1)
        hurry.begin("a", 1)
        hurry.begin("b", 1)
        hurry.begin("b", 2)
        hurry.end("a", 1)
        assert changes == [(1, True), (2, True)]
        hurry.end("b", 1)
        hurry.end("b", 1)
        assert changes == [(1, True), (2, True), (1, False)]

    asyncio.run(test())


def test_nobody_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "LIMIT_S", 0.01)

    async def test() -> None:
        given_back = asyncio.Event()
        hurry = Hurry(lambda process, on: None if on else given_back.set())
        hurry.begin("a", 1)
        await asyncio.wait_for(given_back.wait(), 5)
        hurry.begin("a", 1)  # another switchover of the same
        hurry.end("a", 1)

    asyncio.run(test())


def test_whose_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there, holds no number, or names a process that is no QEMU: none."""
    monkeypatch.setattr(priority, "_PID_FILES", tmp_path)
    for name, text in (("junk", "x"), ("gone", "999999999"), ("other", str(os.getpid()))):
        (tmp_path / f"{name}.pid").write_text(text)
    assert [priority.guest_process(one) for one in ("none", "junk", "gone", "other")] == [None] * 4


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
    priority.real_time(os.getpid(), True)
    try:
        late = threading.Thread(target=work)
        late.start()
        assert os.sched_getscheduler(0) == os.SCHED_RR
        go.set()
        early.join()
        late.join()
    finally:
        priority.real_time(os.getpid(), False)
    assert seen == [os.SCHED_RR, os.SCHED_RR]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
