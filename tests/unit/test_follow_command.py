"""``vmnet follow`` against the daemon's own socket server: what it asks, when it moves, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.control_server import ControlServer, HookAnswer, HookCall
from vmnet.errors import ExitCode, NotFoundError, VmnetError

GIB = 1 << 30
BUSY = {"cpu_percent": 70.0, "cpus": 4, "memory_available_bytes": 3 * GIB, "memory_total_bytes": 4 * GIB}
IDLE = {**BUSY, "cpu_percent": 5.0}
VERDICT = {"clean": True, "lost": 0}


def facts(**vm: Any) -> dict[str, Any]:
    told = {
        "name": "vm1",
        "uuid": "u",
        "host": "a",
        "memory_bytes": GIB >> 3,
        "cpus_busy": 0.2,
        "moved": None,
    }
    hosts = {"a": BUSY, "b": IDLE}
    return {"t": 1000.0, "host": "a", "vm": {**told, **vm}, "hosts": hosts, "missing": {"c": "it is down"}}


AWAY = {"t": 1000.0, "host": "a", "vm": {"name": "vm1", "uuid": "u", "host": "b"}}
MIGRATED = {"id": "m", "verdict": VERDICT}
Answer = dict[str, Any] | VmnetError


class Script:
    """Answers in order, the last again and again; what was asked is kept."""

    def __init__(self, **answers: list[Answer]) -> None:
        self.asked: list[dict[str, Any]] = []
        self._answers = answers
        self._asking = asyncio.Condition()

    async def hook(self, call: HookCall) -> HookAnswer:
        raise AssertionError(call)

    async def request(
        self, request: dict[str, Any], emit: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> dict[str, Any]:
        async with self._asking:
            self.asked.append(request)
            self._asking.notify_all()
        left = self._answers[request["op"]]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, VmnetError):
            raise answer
        if request["op"] == "migrate":
            await emit({"event": "verdict", "lines": ["vm1 runs on b"], **answer["verdict"]})
        return answer

    async def asked_times(self, count: int) -> None:
        async with self._asking:
            await self._asking.wait_for(lambda: len(self.asked) >= count)

    @property
    def moves(self) -> list[str]:
        return [one["destination"] for one in self.asked if one["op"] == "migrate"]


def _heed_interrupts() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(
    there: Path, script: Script, *words: str, interrupted_after: int | None = None
) -> tuple[int, str, str]:
    """Exit code and what it said. ``interrupted_after``: so many requests."""
    done: list[tuple[int, str, str]] = []

    async def body() -> None:
        server = ControlServer(there / "d.sock", script.hook, script.request)
        await server.start()
        argv = ["-m", "vmnet.cli.entry", "follow", "vm1", "--socket", str(there / "d.sock"), *words]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *argv,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=_heed_interrupts,
        )
        try:
            if interrupted_after is not None:
                await asyncio.wait_for(script.asked_times(interrupted_after), 60)
                process.send_signal(signal.SIGINT)
            out, complaint = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
            await server.stop()
        assert process.returncode is not None
        done.append((process.returncode, out.decode(), complaint.decode()))

    asyncio.run(body())
    return done[0]


LOAD = ("--policy", "load")


def test_once_moves_where_it_should_and_says_why(tmp_path: Path) -> None:
    script = Script(facts=[facts()], migrate=[MIGRATED])
    code, out, complaint = run(tmp_path, script, *LOAD)
    assert (code, complaint) == (0, "")
    assert script.moves == ["b"]
    assert out.splitlines() == [
        "vm1 should move from a to b: 28.1 % loaded with it on b instead of 70.0 % loaded with it on a, "
        "a gain of 41.9 percentage points (at least 10.0 percentage points is asked for)",
        "c is left out: it is down",
        "vm1 runs on b",
    ]


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (("--dry-run",), "move"),
        (("--gain", "50"), "stay"),
        (("--cpu-most", "9"), "refused"),
        (("--memory-spare", "3000"), "refused"),
    ],
)
def test_it_stays_if_it_should_or_is_only_asked(tmp_path: Path, words: tuple[str, ...], verdict: str) -> None:
    script = Script(facts=[facts()])
    code, out, _ = run(tmp_path, script, *LOAD, "--json", *words)
    look = json.loads(out)
    assert (code, look["verdict"], look["host"], look["again_s"]) == (0, verdict, "a", None)
    assert [one["op"] for one in script.asked] == ["facts"]


def test_the_pause_counts_from_when_the_vm_came(tmp_path: Path) -> None:
    script = Script(facts=[facts(moved=990.0)])
    _, out, _ = run(tmp_path, script, *LOAD, "--json", "--pause", "30")
    look = json.loads(out)
    assert (look["verdict"], look["to"], look["best"], look["again_s"]) == ("wait", "a", "b", 20.0)


def test_a_move_that_was_not_clean_is_told_as_by_migrate(tmp_path: Path) -> None:
    script = Script(facts=[facts()], migrate=[{"id": "m", "verdict": {"clean": False}}])
    code, out, _ = run(tmp_path, script, *LOAD, "--json")
    assert code == ExitCode.NOT_CLEAN
    assert [json.loads(line).get("event") for line in out.splitlines()] == ["look", "verdict", None]


def test_a_vm_elsewhere_is_no_unknown_one(tmp_path: Path) -> None:
    code, out, complaint = run(tmp_path, Script(facts=[AWAY]), *LOAD)
    assert (code, out) == (ExitCode.REFUSED, "")
    assert complaint == "vmnet: VM 'vm1' is on b; run this on b, or on every host with --watch\n"
    code, _, complaint = run(tmp_path, Script(facts=[NotFoundError("no VM 'vm1'", "look")]), *LOAD)
    assert (code, complaint) == (ExitCode.NOT_FOUND, "vmnet: no VM 'vm1'; look\n")


def test_it_watches_until_it_is_interrupted(tmp_path: Path) -> None:
    """Nobody knows the VM; it is elsewhere; it comes, and its migration fails: not tried again at once."""
    failed = VmnetError("VM 'vm1' stays on a: no memory", "", ExitCode.ROLLED_BACK)
    script = Script(facts=[NotFoundError("no VM 'vm1'"), AWAY, AWAY, facts(), facts()], migrate=[failed])
    words = (*LOAD, "--watch", "--every", "1")
    code, out, complaint = run(tmp_path, script, *words, "--json", interrupted_after=8)
    said = [json.loads(line) for line in out.splitlines()]
    assert code == ExitCode.ABORTED, complaint
    assert [one["event"] for one in said[:6]] == ["failed", "away", "away", "look", "failed", "look"]
    assert (said[1]["host"], said[4]["error"]["code"]) == ("b", ExitCode.ROLLED_BACK)
    assert script.moves == ["b"], "a minute has to pass"
    assert 0 < said[5]["again_s"] <= 60


def test_people_are_told_only_what_is_new(tmp_path: Path) -> None:
    script = Script(facts=[AWAY, AWAY, AWAY, facts(moved=990.0), facts(moved=990.0), facts(moved=990.0)])
    code, out, complaint = run(tmp_path, script, *LOAD, "--watch", "--every", "1", interrupted_after=7)
    assert code == ExitCode.ABORTED, complaint
    assert complaint.splitlines()[0] == "vm1 is on b; waiting until it comes here"
    assert complaint.count("vm1 is on b") == 1
    assert out.count("vm1 should move from a to b, but it moved 10 s ago") == 1


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("--policy", "near"), 2, "'near' is not one of"),
        (("--every", "nan"), 2, "no number"),
        (("--gain", "nan"), 2, "no number"),
        (("--gain", "0"), 2, "x>0"),
        (("--window", "100"), 2, "0.1<=x<=60"),
        (("--fabric", "/nowhere.toml"), 3, "cannot read the fabric /nowhere.toml"),
    ],
)
def test_bad_words_are_refused_before_anything_is_asked(
    tmp_path: Path, words: tuple[str, ...], code: int, why: str
) -> None:
    script = Script(facts=[facts()])
    found, _, complaint = run(tmp_path, script, *words)
    assert (found, script.asked) == (code, [])
    assert why in complaint
