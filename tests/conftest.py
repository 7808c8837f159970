"""For all tests: property tests are not judged by how fast a busy machine draws their examples; a failure is told at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import again
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

settings.register_profile("vmnet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vmnet")


class _FailuresAtOnce:
    """A run takes the better part of an hour, and may be ended before it has said at its end what failed."""

    def __init__(self, terminal: TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f"\nFAILED {report.nodeid}\n{report.longreprtext[-2000:]}")


def pytest_addoption(parser: pytest.Parser) -> None:
    again.add_option(parser)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.register(_FailuresAtOnce(terminal), "failures at once")
        if times := config.getoption("again"):
            config.pluginmanager.register(again.Again(terminal, times), "again")
