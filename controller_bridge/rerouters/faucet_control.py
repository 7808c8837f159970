"""A running Faucet and the files it is configured by: candidates are checked, put in place at once, loaded, and confirmed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from controller_bridge.rerouters import faucet_config
from controller_bridge.rerouters.faucet_check import Checker, Place, beside, read, sha256
from controller_bridge.rerouters.faucet_config import Fabric
from controller_bridge.rerouters.faucet_metrics import NAMES, Running, running
from controller_bridge.rerouters.web import fetch
from vmnet.errors import ConfigError, RefusedError, UnavailableError, WaitTimeoutError

_POLL_S: Final = 0.005
"""Faucet's metrics cannot be subscribed to."""
log = logging.getLogger(__name__)


class FaucetControl:
    def __init__(self, place: Place) -> None:
        self._place = place
        self.checker = Checker(place)

    def fabric(self) -> Fabric:
        """As the files have it now. ConfigError."""
        return faucet_config.load(self._place.config, read)

    def text(self) -> str:
        """Of our file. ConfigError if it cannot be read."""
        try:
            return read(self._place.file)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {self._place.file}: {error}") from None

    async def running(self) -> Running:
        names = "&".join(f"name[]={one}" for one in NAMES)
        return running(await fetch(f"{self._place.metrics}/?{names}", limit_s=self._place.limit_s))

    def check_unchanged(self, fabric: Fabric, now: Running) -> None:
        """RefusedError if Faucet's files are not those it runs by: a reload of ours would bring half-done work into force."""
        for path in fabric.files:
            if now.hashes.get(str(path)) != sha256(read(path)):
                raise RefusedError(
                    f"Faucet has not loaded {path} as it is now", "reload Faucet first, or put the file back"
                )

    def put(self, text: str) -> None:
        """Our file is ``text``, whatever runs."""
        _replace(self._place.file, text)

    async def apply(self, text: str, confirm: Callable[[Running], None]) -> None:
        """Our file is ``text``, and Faucet runs by it. RefusedError if it does not want to: then the file is as it was.

        ``confirm`` may find fault with how it runs before anything is changed.
        """
        before = await self.running()
        confirm(before)
        old = self.text()
        if old == text and before.hashes.get(str(self._place.file)) == sha256(text):
            return
        _replace(self._place.file, text)
        try:
            await self._reload(text, before)
        except RefusedError:
            _replace(self._place.file, old)
            self._hang_up()
            raise

    async def _reload(self, text: str, before: Running) -> None:
        self._hang_up()
        try:
            async with asyncio.timeout(self._place.limit_s):
                while not self._took(text, before, now := await self.running()):
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            how = "SIGHUP" if self._place.pid_file else "FAUCET_CONFIG_STAT_RELOAD"
            raise WaitTimeoutError(
                f"Faucet has not loaded {self._place.file} within {self._place.limit_s:g} s ({how})"
            ) from None
        for datapath, count in now.cold.items():
            if count > before.cold.get(datapath, 0):
                log.warning(
                    "Faucet set %s up anew for a change of vmnet's: packets are lost by that", datapath
                )

    def _took(self, text: str, before: Running, now: Running) -> bool:
        """Reloads are counted after the switches have been told."""
        if now.failed and now.error:
            raise RefusedError(
                f"Faucet does not load its configuration: {now.error}", "it goes on with the one before"
            )
        return now.hashes.get(str(self._place.file)) == sha256(text) and now.reloads != before.reloads

    def _hang_up(self) -> None:
        if self._place.pid_file is None:
            return
        try:
            pid = int(self._place.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError) as error:
            raise UnavailableError(f"no Faucet runs by {self._place.pid_file}: {error}") from None
        if b"faucet" not in command:
            raise UnavailableError(
                f"process {pid} of {self._place.pid_file} is not Faucet", "is the file an old one?"
            )
        os.kill(pid, signal.SIGHUP)


def _replace(path: Path, text: str) -> None:
    """All at once, on disk, with the same owner and mode."""
    was = path.stat()
    with beside(path, text) as new:
        os.chown(new, was.st_uid, was.st_gid)
        new.chmod(was.st_mode & 0o7777)
        with new.open() as file:
            os.fsync(file.fileno())
        new.replace(path)
