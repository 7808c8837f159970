"""Command lines of ssh from a machine's namespace into the machine. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

CONTROL = "/run/ssh.control"
"""In the namespace: the socket of the connection that all commands share."""
SESSION = "/usr/local/libexec/lab-session"
"""Inside: ends a command together with its ssh session (session.c)."""
_TARGET = "root@127.0.0.1"


def _options(key: Path) -> list[str]:
    # the machine is ours, and so is the network to it: it is another one behind the same address each time
    found = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "ControlPath": CONTROL,
    }
    words = ["-F", "none", "-i", str(key)]
    return words + [word for name, value in found.items() for word in ("-o", f"{name}={value}")]


def master(key: Path, sockets: Sequence[str]) -> list[str]:
    """The connection itself. ``sockets``: of the machine, which appear at the same places in the namespace."""
    forwards = [word for path in sockets for word in ("-L", f"{path}:{path}")]
    # a machine that is frozen while others are measured answers nothing for minutes
    patience = ["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=120"]
    return [
        "ssh", "-M", "-N", *_options(key), *patience, "-o", "StreamLocalBindUnlink=yes", *forwards, _TARGET,
    ]  # fmt: skip


def check(key: Path) -> list[str]:
    """Succeeds while the connection is there."""
    return ["ssh", "-O", "check", *_options(key), _TARGET]


def command(key: Path, argv: Sequence[str], cwd: str | None = None) -> list[str]:
    """``argv`` in the machine. It ends when this ssh ends."""
    return ["ssh", "-o", "ControlMaster=no", *_options(key), _TARGET, _line([SESSION, *argv], cwd)]


def terminal(key: Path, argv: Sequence[str]) -> list[str]:
    """``argv`` in the machine with a terminal, which ends it by hanging up."""
    return ["ssh", "-t", "-o", "ControlMaster=no", *_options(key), _TARGET, _line(argv, None)]


def _line(argv: Sequence[str], cwd: str | None) -> str:
    place = f"cd {shlex.quote(cwd)} && " if cwd else ""
    return f"{place}exec {shlex.join(argv)}"
