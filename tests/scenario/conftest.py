"""One lab with a virtual router for all scenarios that can share it: bringing it up and its convergence take half a minute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import router_kit
from router_lab import routed_lab

from vmnet.lab import Lab


@pytest.fixture(scope="session")
def pisa() -> Iterator[Lab]:
    with routed_lab("pisa", "labrouter") as lab:
        router_kit.prepare(lab)
        yield lab
