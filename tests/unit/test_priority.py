"""Real-time priority: who has it, for how long, and that it is given back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.dataplane import priority
from dom0.dataplane.priority import Hurry

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


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


@pytest.fixture
def process() -> Iterator[int]:
    """Somebody else's process, ordinary in every way."""
    with subprocess.Popen(["sleep", "60"]) as child:
        os.setpriority(os.PRIO_PROCESS, child.pid, 0)
        os.sched_setscheduler(child.pid, os.SCHED_OTHER, os.sched_param(0))
        yield child.pid
        child.kill()


@needs_root
def test_given_and_taken_back(process: int) -> None:
    priority.real_time(process, True)
    assert os.sched_getscheduler(process) == os.SCHED_RR
    priority.real_time(process, False)
    assert os.sched_getscheduler(process) == os.SCHED_OTHER
    priority.favour(process, True)
    assert os.getpriority(os.PRIO_PROCESS, process) < 0
    priority.favour(process, False)
    assert os.getpriority(os.PRIO_PROCESS, process) == 0


@needs_root
@pytest.mark.parametrize("on", [True, False])
def test_what_the_operator_gave_stays(process: int, on: bool) -> None:
    os.sched_setscheduler(process, os.SCHED_FIFO, os.sched_param(3))
    os.setpriority(os.PRIO_PROCESS, process, -5)
    priority.real_time(process, on)
    priority.favour(process, on)
    assert os.sched_getscheduler(process) == os.SCHED_FIFO
    assert os.sched_getparam(process).sched_priority == 3
    assert os.getpriority(os.PRIO_PROCESS, process) == -5


@needs_root
def test_what_a_killed_daemon_left_is_taken_back(
    process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priority, "_PID_FILES", tmp_path)
    monkeypatch.setattr(priority, "guest_process", lambda name: int((tmp_path / f"{name}.pid").read_text()))
    (tmp_path / "vm1.pid").write_text(str(process))
    priority.real_time(process, True)
    priority.favour(process, True)
    priority.calm()
    assert os.sched_getscheduler(process) == os.SCHED_OTHER
    assert os.getpriority(os.PRIO_PROCESS, process) == 0


@needs_root
def test_all_threads() -> None:
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
        go.set()
        early.join()
        late.join()
    finally:
        priority.real_time(os.getpid(), False)
    assert seen == [os.SCHED_RR, os.SCHED_RR]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
