"""Runs a command as its child and collects whatever that leaves behind, until nothing is left: what init does on a host.

A dead QEMU whose daemon has gone is a child of init. libvirt goes on with a migration only when it is gone from the process
table, and a container's init may look for dead children only every second or two; this one does at once.

Run as a program, by path and without site-packages: ``python -I -S reaper.py COMMAND...``.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def main(argv: list[str]) -> int:
    """Returns when neither the command nor any process it started is left."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    if os.fork() == 0:
        os.execvp(argv[0], argv)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
