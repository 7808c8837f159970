"""``--again N``: tests with real hosts that failed are run N more times, alone. Each of them has to pass each time.

Such a test measures traffic while it shares two processors with its hosts and its VMs. A machine that takes the processors away for
0.1 s makes a switch in user space drop packets, with a migration or without one. What is wrong with vmnet fails again. Each first
failure stays in the output, and the summary names the tests. Tests that need no real time get no second try.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

REAL = ("integration", "machines", "scenario")
"""Folders of the tests that measure what real programs do in real time."""
MOST = 8
"""If more have failed, the machine is not the cause."""
_LIMIT_S = 1500.0


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        "--again", type=int, default=0, metavar="N", help="run failed tests with real hosts N more times"
    )


def candidates(failed: list[str]) -> list[str]:
    """Those that may be run again: all or none, since one that may not has failed the run anyway."""
    real = all(set(PurePath(one.partition("::")[0]).parts[:-1]) & set(REAL) for one in failed)
    return failed if real and len(failed) <= MOST else []


class Again:
    """Runs after the last test, before the summary, and decides the exit status."""

    def __init__(self, terminal: TerminalReporter, times: int) -> None:
        self._terminal = terminal
        self._times = times
        self._failed: dict[str, None] = {}
        self._passed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        again = candidates(list(self._failed))
        if exitstatus != pytest.ExitCode.TESTS_FAILED or not again:
            return
        self._terminal.write_line(
            f"\n{len(again)} failed, are run {self._times} times more: {', '.join(again)}"
        )
        if all(self._run(again, session) for _ in range(self._times)):
            self._passed = again
            session.exitstatus = pytest.ExitCode.OK

    def _run(self, tests: list[str], session: pytest.Session) -> bool:
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        sys.stdout.flush()
        try:
            done = subprocess.run(
                argv, cwd=session.config.rootpath, env=os.environ, check=False, timeout=_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            self._terminal.write_line(f"they did not end within {_LIMIT_S:g} s")
            return False
        return done.returncode == 0

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        if self._passed:
            terminalreporter.section(
                f"failed once, passed {self._times} times when run again: the run counts as passed"
            )
            for one in self._passed:
                terminalreporter.write_line(f"AGAIN {one}")
