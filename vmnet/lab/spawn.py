"""Starting daemons that outlive us, with their pid recorded before they run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import reaper
from vmnet.lab.procs import Proc, recorded
from vmnet.lab.wait import wait_for

# The shell writes its own line of /proc/PID/stat (pid and start time survive exec), then becomes the daemon.
_RECORD = 'read -r line < /proc/$$/stat && echo "$line" > "$0.new" && mv "$0.new" "$0" && exec "$@"'


def spawn(command: Sequence[str], pid_file: Path, log: Path) -> Proc:
    """Start a daemon in a session of its own, output appended to ``log``.

    Raises LabError when it cannot be started.
    """
    return _start(_recorded(command, pid_file), pid_file, log)


def spawn_reaped(command: Sequence[str], pid_file: Path, log: Path) -> Proc:
    """As :func:`spawn`, for a daemon that leaves processes behind: a parent of theirs (``NODE.reaper``) collects them."""
    pid_file.unlink(missing_ok=True)
    parent = pid_file.with_suffix(".reaper")
    collector = [sys.executable, "-I", "-S", reaper.__file__]
    _start(_recorded([*collector, *_recorded(command, pid_file)], parent), parent, log)
    return _wait_recorded(pid_file)


def _recorded(command: Sequence[str], pid_file: Path) -> list[str]:
    return ["/bin/sh", "-c", _RECORD, str(pid_file), *command]


def _wait_recorded(pid_file: Path) -> Proc:
    return wait_for(f"{pid_file.name} to record its pid", lambda: recorded(pid_file), 5, 0.002)


def _start(command: Sequence[str], pid_file: Path, log: Path) -> Proc:
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    pid_file.unlink(missing_ok=True)
    with log.open("a") as output:
        code = subprocess.run(
            ["setsid", "--fork", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
            cwd="/",
            check=False,
        ).returncode
    if code:
        raise LabError(f"cannot start {pid_file.name}: setsid ended with code {code}")
    return _wait_recorded(pid_file)


def last_line(log: Path) -> str:
    """The end of a log, for error messages."""
    try:
        return last_words(log.read_text(errors="replace"))
    except OSError:
        return "no log"


def last_words(text: str) -> str:
    """The last line that is not empty."""
    lines = text.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")


def _environment() -> dict[str, str]:
    kept = ("PATH", "LANG", "PYTHONPATH", "VMNET_CACHE", "PYTHONUNBUFFERED", "VMNET_CRASH_AT")
    environment = {key: os.environ[key] for key in kept if key in os.environ}
    return {"LANG": "C.UTF-8", "HOME": "/root", **environment}
