"""The embedded ovsdb-server: one thread starts it, waits for its end, and starts it again if that was not
asked for.

That thread lives as long as the process does, which matters: the kernel ends the child when the thread that
started it ends (PR_SET_PDEATHSIG). Should we be killed in the instant before that takes hold, the next start
finds the server by its pidfile and ends it.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from concurrent.futures import Future
from typing import IO

from vmnet.errors import UnavailableError, VmnetError
from vmnet.store import dbfile, launch, process
from vmnet.store.settings import StoreSettings

LOG = logging.getLogger(__name__)
QUICK_S = 5.0  # a server that ends within this time of its start counts as failed
QUICK_MAX = 5  # so many in a row, and calls fail at once instead of waiting for the next start
PAUSE_MAX_S = 5.0  # between two starts


class EmbeddedServer:
    """Runs ovsdb-server on ``settings.database`` until ``stop``. ``failure`` says why it no longer runs, if
    so."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self.failure: VmnetError | None = None
        self._ready: Future[None] = Future()
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._thread = threading.Thread(target=self._main, name="vmnet-store-server", daemon=True)

    @property
    def pid(self) -> int | None:
        """The server's pid, while it runs."""
        child = self._child
        return child.pid if child else None

    def start(self) -> None:
        """Return when the server answers; blocks. Raises UnavailableError or WaitTimeoutError."""
        try:
            self._lock = launch.lock(self.settings)
            self._thread.start()
            self._ready.result()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """End the server; its thread starts it again. After a failed write (disk full) nothing else makes it write
        again, however much room there is since."""
        with self._guard:
            if self._child is not None:
                self._child.terminate()

    def stop(self) -> None:
        """End the server and wait for it; blocks for a few seconds at most. Safe to call twice."""
        self._stopping.set()
        with self._guard:
            if self._child is not None:
                self._child.terminate()
        if self._thread.is_alive():
            self._thread.join(2.0)
        with self._guard:
            if self._child is not None:
                self._child.kill()
        if self._thread.is_alive():
            self._thread.join(5.0)
        if self._lock is not None:
            self._lock.close()

    def _main(self) -> None:
        quick = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            self._attempt()
            if not self._ready.done():
                self._ready.set_exception(self.failure or UnavailableError("ovsdb-server was stopped"))
                return
            quick = quick + 1 if time.monotonic() - began < QUICK_S else 0
            if quick >= QUICK_MAX and self.failure is None:
                self._fail(UnavailableError(f"ovsdb-server has ended {quick} times in a row", self._hint()))
            self._stopping.wait(min(PAUSE_MAX_S, 0.05 * 2 ** min(quick, 10)))

    def _attempt(self) -> None:
        try:
            launch.end_leftover(self.settings)
            self._serve()
        except VmnetError as failure:
            self._fail(failure)
        except OSError as failure:
            self._fail(UnavailableError(f"cannot run ovsdb-server: {failure}", self._hint()))

    def _fail(self, failure: VmnetError) -> None:
        """Calls fail with this until the server runs again; somebody may repair the cause meanwhile."""
        if not self._stopping.is_set():
            LOG.error("%s", failure)
        self.failure = failure

    def _serve(self) -> None:
        """One life of the server."""
        dbfile.prepare(self.settings)
        self.settings.socket.unlink(missing_ok=True)
        with self._guard:
            if self._stopping.is_set():
                return
            child = self._child = launch.spawn(self.settings)
        try:
            process.write_identity(self.settings.pidfile, child.pid)
            launch.wait_ready(child, self.settings)
            self.failure = None
            if not self._ready.done():
                self._ready.set_result(None)
            status = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        finally:
            with self._guard:
                self._child = None
            self.settings.pidfile.unlink(missing_ok=True)
        if not self._stopping.is_set():
            LOG.warning("ovsdb-server ended (status %d); starting it again", status)

    def _hint(self) -> str:
        return f"see {self.settings.log}"
