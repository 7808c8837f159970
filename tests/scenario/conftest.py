"""One lab with a virtual router for all scenarios that can share it: bringing it up and its convergence take half a minute."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack

import pytest
import router_kit
from router_lab import routed_lab

from vmnet.lab import Lab


class SharedLab:
    """The lab in common. A test that failed in it leaves it spoiled: the next one gets a new one, and is judged by itself."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._lab: Lab | None = None
        self.spoiled = False

    def get(self) -> Lab:
        if self.spoiled:
            self.close()
        if self._lab is None:
            self._lab = self._stack.enter_context(routed_lab("pisa", "labrouter"))
            router_kit.prepare(self._lab)
        return self._lab

    def close(self) -> None:
        self._lab, self.spoiled = None, False
        self._stack.close()


_SHARED = SharedLab()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and "pisa" in getattr(item, "fixturenames", ()):
        _SHARED.spoiled = True
    return report


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[SharedLab]:
    yield _SHARED
    _SHARED.close()


@pytest.fixture
def pisa(shared_lab: SharedLab) -> Lab:
    return shared_lab.get()
