"""Certificates that change while a program runs: renewed ones and a newer list of revoked ones are used without a restart."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from vmnet.config import Tls
from vmnet.errors import VmnetError
from vmnet.peer import identity

log = logging.getLogger(__name__)
LOOK_S = 60.0
_Stamp = tuple[int, int, int]


class Credentials:
    """Follows the files of ``tls``. ``contexts``: in use, of servers; without any there is nothing to follow.

    ``end`` ends the connections of those whose certificates count no more. While ``busy``, as in a migration, certificates that expire
    are left alone. ``clock``: seconds since the epoch.
    """

    def __init__(
        self,
        tls: Tls,
        contexts: Iterable[ssl.SSLContext | None],
        end: Callable[[identity.Barred], None],
        busy: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tls, self._end, self._busy, self._clock = tls, end, busy, clock
        self._revoked: frozenset[int] = frozenset()
        self._contexts = [one for one in contexts if one is not None]
        self._seen = self._stamps()
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None

    def follow(self) -> None:
        """Look once a minute from now on, until :meth:`close`."""
        if self._contexts:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look_again)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._reading is not None:
            self._reading.cancel()

    def look(self) -> None:
        """If a file has changed, read them all."""
        stamps = self._stamps()
        if stamps != self._seen and self._contexts:
            self._seen = stamps
            self._reading = asyncio.ensure_future(self._read())

    async def read(self) -> None:
        """Use the files as they are now. ConfigError if they do not fit together; nothing has changed then."""
        self._revoked = await asyncio.to_thread(_revoked, self._tls)
        identity.server_context(self._tls)
        for one in self._contexts:
            identity.load(one, self._tls)
        self.end()

    def end(self) -> None:
        """Close the connections of those whose certificates count no more."""
        self._end(identity.Barred(self._revoked, 0.0 if self._busy() else self._clock()))

    async def _read(self) -> None:
        try:
            await self.read()
        except VmnetError as error:
            log.error("the certificates in use stay: %s", error)
        else:
            log.info("%s and the files beside it were read again", self._tls.certificate)

    def _look_again(self) -> None:
        self.look()
        self.end()
        self.follow()

    def _stamps(self) -> dict[Path, _Stamp | None]:
        files = (self._tls.ca, self._tls.certificate, self._tls.key, self._tls.crl)
        return {file: _stamp(file) for file in files}


def _stamp(file: Path) -> _Stamp | None:
    try:
        found = os.stat(file)  # noqa: PTH116
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _revoked(tls: Tls) -> frozenset[int]:
    from vmnet import pki_revoked  # what it needs takes a quarter of a second to load

    return pki_revoked.serials(tls.crl, tls.ca)
