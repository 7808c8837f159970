"""Waiting, always with a deadline and always saying for what."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from vmnet.errors import LabError

T = TypeVar("T")


def wait_for(
    what: str, check: Callable[[], T | None], seconds: float, interval: float = 0.02, hint: str = ""
) -> T:
    """Call ``check`` until it answers something true, and return that.

    Raises LabError naming ``what`` when ``seconds`` have passed.
    """
    deadline = time.monotonic() + seconds
    while not (found := check()):
        if time.monotonic() > deadline:
            raise LabError(f"waited {seconds:g} s for {what}", hint)
        time.sleep(interval)
    return found
