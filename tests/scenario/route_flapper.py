"""Routes that come and go at the server, as fast as asked: kernel routes, which its FRR announces."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vmnet.lab import Lab, announce

_TURN_S = 0.01
FIRST, COUNT = 8000, 500
"""Which of the server's prefixes; no traffic goes to them."""


class Flapper:
    """Withdraws each prefix and announces it again, one after the other."""

    def __init__(self, process: subprocess.Popen[str], rate: int) -> None:
        self.changes = 0
        self._process, self._rate = process, rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flapper")
        self._thread.start()

    def _run(self) -> None:
        begin = time.monotonic()
        assert self._process.stdin is not None
        while not self._stop.wait(_TURN_S):
            due = int((time.monotonic() - begin) * self._rate)
            lines = [self._line(number) for number in range(self.changes, due)]
            self._process.stdin.write("".join(lines))
            self._process.stdin.flush()
            self.changes = due

    def _line(self, number: int) -> str:
        prefix = announce.ipv4_prefix(FIRST + number % COUNT)
        withdrawn = number // COUNT % 2 == 0
        return f"route {'del' if withdrawn else 'add'} blackhole {prefix} proto static\n"

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def flapping(lab: Lab, rate: int = 1000) -> Iterator[Flapper]:
    """``rate`` changes a second for as long as the block lasts; the last ones stay as they are."""
    process = lab.node("server").popen(["ip", "-batch", "-"], stdin=subprocess.PIPE, text=True)
    flapper = Flapper(process, rate)
    try:
        yield flapper
    finally:
        flapper.stop()
        process.communicate(timeout=10)
    assert process.returncode == 0, "ip did not take every change"


def restore(lab: Lab) -> None:
    """Every prefix is announced again."""
    lines = "".join(
        f"route replace blackhole {announce.ipv4_prefix(FIRST + number)} proto static\n"
        for number in range(COUNT)
    )
    lab.node("server").run(["ip", "-batch", "-"], text=lines)


@contextmanager
def withdrawn(lab: Lab, number: int = 9000) -> Iterator[str]:
    """One prefix is not announced in this block; the prefix."""
    prefix = announce.ipv4_prefix(number)
    server = lab.node("server")
    server.run(["ip", "route", "del", "blackhole", prefix, "proto", "static"])
    try:
        yield prefix
    finally:
        server.run(["ip", "route", "replace", "blackhole", prefix, "proto", "static"])
