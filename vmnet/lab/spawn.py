"""Starting daemons that outlive us, with their pid recorded before they run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab.procs import Proc, recorded
from vmnet.lab.wait import wait_for

# The shell writes its own line of /proc/PID/stat (pid and start time survive exec), then becomes the daemon.
_RECORD = 'read -r line < /proc/$$/stat && echo "$line" > "$0.new" && mv "$0.new" "$0" && exec "$@"'


def spawn(command: Sequence[str], pid_file: Path, log: Path) -> Proc:
    """Start a daemon in a session of its own, output appended to ``log``.

    Raises LabError when it cannot be started.
    """
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    pid_file.unlink(missing_ok=True)
    argv = ["setsid", "--fork", "/bin/sh", "-c", _RECORD, str(pid_file), *command]
    with log.open("a") as output:
        code = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
            cwd="/",
            check=False,
        ).returncode
    if code:
        raise LabError(f"cannot start {command[0]}: setsid ended with code {code}")
    return wait_for(f"{pid_file.name} to record its pid", lambda: recorded(pid_file), 5, 0.002)


def last_line(log: Path) -> str:
    """The end of a log, for error messages."""
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return "no log"
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")


def _environment() -> dict[str, str]:
    kept = ("PATH", "LANG", "PYTHONPATH", "VMNET_CACHE", "PYTHONUNBUFFERED", "VMNET_CRASH_AT")
    environment = {key: os.environ[key] for key in kept if key in os.environ}
    return {"LANG": "C.UTF-8", "HOME": "/root", **environment}
