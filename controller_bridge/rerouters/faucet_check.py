"""A candidate for vmnet's file is looked at by Faucet's own checker, in the whole configuration, before it is put in place."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller_bridge.rerouters import faucet_config
from vmnet.errors import ConfigError, RefusedError, WaitTimeoutError

_CHECK_S: Final = 60.0


@dataclass(frozen=True)
class Place:
    """``config``: the file that Faucet is started with; ``file``: ours, included by it; ``check``: Faucet's own checker.

    ``metrics``: where its Prometheus metrics are; ``pid_file``: of the process that is sent SIGHUP; without one Faucet has to see by
    itself that a file has changed (FAUCET_CONFIG_STAT_RELOAD).
    """

    config: Path
    file: Path
    metrics: str
    check: str = "check_faucet_config"
    pid_file: Path | None = None
    limit_s: float = 10.0


class Checker:
    """Remembers what it has found good: a cut-over does not wait for what ``prepare`` has checked."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._checked: set[str] = set()

    async def check(self, candidate: str) -> None:
        """RefusedError with what Faucet's checker says if it does not like the whole configuration with our file changed."""
        others = [
            read(one) for one in faucet_config.load(self._place.config, read).files if one != self._place.file
        ]
        known = sha256("\0".join([candidate, *others]))
        if known in self._checked:
            return
        top = self._place.config
        named = faucet_config.included(top, read(top), self._place.file)
        with beside(self._place.file, candidate) as ours, beside(top, named.naming(ours)) as copy:
            await self._run_check(copy)
        self._checked.add(known)

    async def _run_check(self, config: Path) -> None:
        program = shutil.which(self._place.check)
        if program is None:
            raise ConfigError(
                f"no program {self._place.check}", "say in `check` where Faucet's check_faucet_config is"
            )
        process = await asyncio.create_subprocess_exec(
            *(program, str(config)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(_CHECK_S):
                said, complained = await process.communicate()
        except TimeoutError:
            raise WaitTimeoutError(f"{program} is not done within {_CHECK_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            lines = (
                (said or complained).decode(errors="replace").replace(str(config), str(self._place.config))
            )
            raise RefusedError(
                f"{Path(program).name} refuses the configuration: {' '.join(lines.split())[:500]}",
                "nothing has been changed; does Faucet accept its files as they are?",
            )


def read(path: Path) -> str:
    return path.read_text("utf-8")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def beside(path: Path, text: str) -> Iterator[Path]:
    """A file in the same folder, so that what it includes is found; gone afterwards."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".vmnet", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
