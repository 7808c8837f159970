"""A child process that speaks JSON lines: waits for one with a deadline, and never outlives its ``with`` block."""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from vmnet.errors import UnavailableError, WaitTimeoutError

END_S = 5.0


class Child:
    """``lines`` are the JSON objects it has printed so far; other output is kept in ``noise``."""

    def __init__(self, what: str, process: subprocess.Popen[str]) -> None:
        self.what = what
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.noise = ""
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=read, daemon=True) for read in (self._read_out, self._read_err)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END_S)
        for thread in self._threads:
            thread.join(END_S)

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            try:
                found = json.loads(text)
            except ValueError:
                found = None
            if isinstance(found, dict):
                self.lines.append(found)
                self._queue.put(found)
            else:
                self.noise += text
        self._queue.put(None)

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.noise += text

    def expect(
        self, wanted: str, match: Callable[[dict[str, Any]], bool], timeout_s: float
    ) -> dict[str, Any]:
        """The next line that matches.

        Raises WaitTimeoutError after ``timeout_s``, UnavailableError when the process ends first.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise WaitTimeoutError(f"no {wanted} from {self.what} within {timeout_s:g} s") from None
            if line is None:
                self._join()  # its last words may come a moment later
                raise UnavailableError(f"{self.what} ended: {self.last_noise()}")
            if match(line):
                return line

    def finish(self, timeout_s: float) -> int:
        """Waits for its end; its exit code. Raises WaitTimeoutError when it goes on."""
        if not _ended_within(self.process, timeout_s):
            raise WaitTimeoutError(f"{self.what} has not ended within {timeout_s:g} s")
        code = self.process.wait()
        self._join()
        return code

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(END_S)

    def last_noise(self) -> str:
        """The last line that was not JSON: its error, if it said one."""
        return next((line for line in reversed(self.noise.splitlines()) if line.strip()), "it said nothing")


def _ended_within(process: subprocess.Popen[str], timeout_s: float) -> bool:
    """Told by the kernel, to the microsecond: ``Popen.wait`` with a limit looks only every 50 ms, and we measure how long it took."""
    if process.poll() is not None:
        return True
    descriptor = os.pidfd_open(process.pid)
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


PIPES: dict[str, Any] = {
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
}
