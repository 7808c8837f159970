"""Vagrant's commands, and commands inside its machines by one ssh each."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vmnet.errors import LabError
from vmnet.lab.command import Completed, run

HERE = Path(__file__).resolve().parent
NAMES = {"a": "host-a", "b": "host-b", "client": "client"}
"""What the how-to calls a machine, and what Vagrant does."""
_UP_S = 3600.0
_RUN_S = 300.0


class Machines:
    """Those of the Vagrantfile beside this file."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._environment = {**os.environ, "VAGRANT_CHECKPOINT_DISABLE": "1", **settings}
        self._ssh_config = HERE / ".vagrant/ssh_config"

    def vagrant(self, *words: str) -> None:
        """Its output goes where ours goes. Raises LabError when it fails."""
        try:
            code = subprocess.run(
                ["vagrant", "--no-tty", *words],
                cwd=HERE,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                timeout=_UP_S,
            ).returncode
        except subprocess.TimeoutExpired:
            raise LabError(f"'vagrant {shlex.join(words)}' did not end within {_UP_S:g} s") from None
        if code:
            raise LabError(f"'vagrant {shlex.join(words)}' failed with code {code}")

    def up(self, name: str) -> None:
        """Raises LabError if Vagrant has not made it."""
        self.vagrant("up", NAMES[name], "--provider", "libvirt")
        if NAMES[name] not in self.left():
            raise LabError(f"'vagrant up {NAMES[name]}' ended without an error, and made no machine")

    def left(self) -> list[str]:
        """Machines that an earlier `vagrant up` made."""
        return sorted({path.parts[-3] for path in HERE.glob(".vagrant/machines/*/libvirt/id")})

    def reachable(self) -> None:
        """Ask Vagrant once how to reach the machines; each of its commands takes seconds."""
        done = subprocess.run(
            ["vagrant", "ssh-config", *NAMES.values()],
            cwd=HERE, env=self._environment, capture_output=True, text=True, timeout=_RUN_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise LabError(f"'vagrant ssh-config' failed: {done.stderr.strip()[-300:]}")
        self._ssh_config.write_text(done.stdout)

    def argv(self, name: str, argv: Sequence[str]) -> list[str]:
        """``argv`` as root of that machine."""
        return ["ssh", "-F", str(self._ssh_config), NAMES[name], shlex.join(["sudo", *argv])]

    def run(self, name: str, *argv: str, check: bool = True, timeout: float = _RUN_S) -> Completed:
        return run(self.argv(name, argv), check=check, timeout=timeout)

    def shell(self, name: str, line: str, *, check: bool = True) -> Completed:
        return self.run(name, "sh", "-c", line, check=check)

    def feed(self, name: str, path: str, content: bytes) -> None:
        """A file on that machine. Raises LabError when it cannot be written."""
        done = subprocess.run(
            self.argv(name, ["sh", "-c", f"cat > {shlex.quote(path)}"]),
            input=content, capture_output=True, timeout=_RUN_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise LabError(f"cannot write {path} on {name}: {done.stderr.decode(errors='replace')[-300:]}")

    def popen(self, name: str, argv: Sequence[str], **how: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(self.argv(name, argv), **how)
