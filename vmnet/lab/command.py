"""Running a program to its end, with one clear line when it fails."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from vmnet.errors import LabError

Completed = subprocess.CompletedProcess[str]


def run(
    argv: Sequence[str],
    *,
    text: str | None = None,
    check: bool = True,
    timeout: float = 30.0,
    inherits: Sequence[int] = (),
) -> Completed:
    """Run a program and collect its output. It gets the descriptors ``inherits`` besides the standard ones.

    Raises LabError when it is missing, fails (unless ``check`` is false) or takes longer than ``timeout`` seconds.
    """
    what = " ".join(argv)[:160]
    try:
        done = subprocess.run(
            list(argv),
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=None if text is not None else subprocess.DEVNULL,
            pass_fds=inherits,
        )
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed", "see docs/lab.md for the packages") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"'{what}' did not end within {timeout:g} s") from None
    if check and done.returncode:
        reason = "; ".join((done.stderr.strip() or done.stdout.strip() or "no output").split("\n"))[:300]
        raise LabError(f"'{what}' failed with code {done.returncode}: {reason}")
    return done
