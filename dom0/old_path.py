"""When an old path is empty: the fabric leads elsewhere, and nothing that it has sent this way is under way any more.

Silence alone does not tell: a switch that does not get a processor for a tenth of a second is silent as well, and sends on what it has
kept when it does. So after a silence the fabric is asked for fences, which wait behind that in every queue. A fence has come, and
nothing else meanwhile: then nothing will. Where there are none (:class:`~controller_bridge.rerouters.base.Fences`), silence has to do.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from controller_bridge.fence import TOKEN_BYTES
from dom0.dataplane.fences import Fences
from vmnet.errors import VmnetError

LIMIT_S: Final = 0.5
"""Switches' caches follow their tables late (0.2 s was the worst that was seen). What comes after that is broadcast, most likely."""
_QUIET_S: Final = 0.01
_LOOK_S: Final = 0.002
_FENCE_S: Final = 0.1
"""A fence may be lost like any other packet: then another is asked for."""
_log = logging.getLogger(__name__)

Ask = Callable[[bytes], Awaitable[int]]
"""Asks the fabric for fences with this token; how many there are. VmnetError or OSError if it cannot be asked."""


class OldPath:
    """``counted``: frames that have come by it so far, fences and all; they go into ``tunnels``. ``ask`` None: there are no fences."""

    def __init__(self, counted: Callable[[], int], tunnels: Iterable[str], ask: Ask | None) -> None:
        self._counted, self._tunnels, self._ask = counted, list(tunnels), ask
        self._fences: Fences | None = None

    async def until_empty(self) -> bool:
        """False: that was not seen within 0.5 s."""
        self._fences = self._watched()
        try:
            async with asyncio.timeout(LIMIT_S):
                while not await self._passed(await self._silent()):
                    pass
        except TimeoutError:
            return False
        finally:
            if self._fences is not None:
                self._fences.stop()
        return True

    async def close(self) -> None:
        """To be called in any case, but when nothing is urgent."""
        if self._fences is not None:
            await self._fences.close()

    def _watched(self) -> Fences | None:
        if self._ask is None:
            return None
        try:
            return Fences(self._tunnels)
        except OSError as error:
            _log.warning("fences cannot be seen: %s", error)
            return None

    def _came(self) -> int:
        """But for fences."""
        counted = self._counted()
        if self._fences is None:
            return counted
        self._fences.turn()
        return counted - self._fences.seen

    async def _silent(self) -> int:
        """Until nothing has come for a while: how much had."""
        loop = asyncio.get_running_loop()
        count, since = self._came(), loop.time()
        while loop.time() - since < _QUIET_S:
            await asyncio.sleep(_LOOK_S)
            if (now := self._came()) != count:
                count, since = now, loop.time()
        return count

    async def _passed(self, count: int) -> bool:
        """A fence sent now has come, and nothing else meanwhile; or there is none."""
        if self._fences is None or self._ask is None:
            return True
        token = secrets.token_bytes(TOKEN_BYTES)
        self._fences.expect(token)
        try:
            sent = await self._ask(token)
        except (VmnetError, OSError) as error:
            _log.info("no fences: %s", error)
            return True
        if not await self._fences.come(sent, _FENCE_S):
            _log.info("not all of %d fences have come within %g s", sent, _FENCE_S)
            return False
        return self._came() == count
