"""A router's interfaces in its namespace are up or down, and have the MTU, as in its VM. Applied off the loop, at a pace.

With many routes an interface that goes down keeps the kernel busy for half a second, and a VM may do that as often as it likes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from dom0.router.namespace import set_state
from vmnet.limited_log import LimitedLog

PAUSE_S = 0.1
LEAST_MTU, MOST_MTU = 68, 65_535
"""RFC 791, section 3.2; the longest IPv4 packet (veth takes no more)."""


class LinkStates:
    """``changed``: called on the loop after something was changed. Of what is told of an interface meanwhile the newest counts."""

    def __init__(self, namespace: str, changed: Callable[[], None], log: logging.Logger) -> None:
        self._namespace, self._changed = namespace, changed
        self._log = LimitedLog(log, namespace)
        self._wanted: dict[str, tuple[bool, int]] = {}
        self._task: asyncio.Task[None] | None = None

    def want(self, interface: str, up: bool, mtu: int) -> None:
        """``mtu`` in bytes; one that no interface here can have is left as it is."""
        if not LEAST_MTU <= mtu <= MOST_MTU:
            self._log.warn(time.monotonic(), f"an MTU of {mtu} for {interface}: left as it was")
            return
        self._wanted[interface] = up, mtu
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, {}
                if await asyncio.to_thread(self._apply, wanted):
                    self._changed()
                await asyncio.sleep(PAUSE_S)  # the pace, however often the VM changes its mind
        finally:
            self._task = None

    def _apply(self, wanted: dict[str, tuple[bool, int]]) -> bool:
        """Whether anything was changed."""
        changed = False
        for interface, (up, mtu) in wanted.items():
            try:
                changed |= set_state(self._namespace, interface, up, mtu)
            except OSError as error:
                self._log.warn(time.monotonic(), f"{interface} cannot be as it is in the VM: {error}")
        return changed

    async def end(self) -> None:
        """Nothing is applied any more; what was begun is done."""
        self._wanted.clear()
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait({task})
