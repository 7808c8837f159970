"""Programs from PyPI that pin what they need, and so cannot share this project's .venv: each has its own, made once, in a cache.

Also a program, for scripts/setup.sh: makes all of them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

FAUCET = "faucet-1.10.12"
RYU = "ryu-4.34"
_STEPS = {
    FAUCET: (["faucet==1.10.12"],),
    # Ryu's setup.py needs a setuptools with easy_install's script writer; its eventlet must be one that Python 3.11 can load.
    RYU: (
        ["setuptools<58", "wheel", "pbr<6"],
        ["--no-build-isolation", "ryu==4.34", "eventlet==0.33.3", "dnspython>=2.3,<2.7"],
    ),
}
_TOO_NEW = {
    RYU: (
        (3, 12),
        "Ryu 4.34 is built by setuptools before 58 only, which needs distutils; Python has none from 3.12 on",
    ),
}


class NotThereError(Exception):
    """It cannot be had; says why."""


def venv(name: str) -> Path:
    """The folder of its programs. NotThereError if it is not in the cache and cannot be installed."""
    limit, why = _TOO_NEW.get(name, (None, ""))
    if limit and sys.version_info >= limit:  # .venv and these are made by the same /usr/bin/python3
        raise NotThereError(f"{why} (this is {sys.version_info.major}.{sys.version_info.minor})")
    cache = Path(os.environ.get("VMNET_CACHE", "/var/cache/vmnet"))
    home = cache / name
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock-pypi").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".complete").exists():
            _make(home, _STEPS[name])
    return home / "bin"


def _make(home: Path, steps: tuple[list[str], ...]) -> None:
    shutil.rmtree(home, ignore_errors=True)
    _run(["/usr/bin/python3", "-m", "venv", str(home)])
    for packages in steps:
        _run(
            [
                str(home / "bin/python"),
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--no-input",
                "-q",
                *packages,
            ]
        )
    (home / ".complete").touch()


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=280)
    except subprocess.TimeoutExpired:
        raise NotThereError(f"{' '.join(argv[-1:])}: not installed within 280 s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise NotThereError(lines[-1] if lines else f"{argv[0]} ended with {done.returncode}")


if __name__ == "__main__":
    failed = 0
    for one in _STEPS:
        try:
            venv(one)
        except NotThereError as error:
            failed = 1
            print(f"{one}: {error}", file=sys.stderr)
    sys.exit(failed)
