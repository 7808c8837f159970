"""The embedded ovsdb-server: one thread starts it, waits for its end, and starts it again if that was not
asked for.

That thread lives as long as the process does, which matters: the kernel ends the child when the thread that
started it ends (PR_SET_PDEATHSIG). Should we be killed in the instant before that takes hold, the next start
finds the server by its pidfile and ends it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import socket
import subprocess
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import IO

from vmnet.errors import UnavailableError, VmnetError, WaitTimeoutError
from vmnet.store import dbfile, process
from vmnet.store.settings import StoreSettings

LOG = logging.getLogger(__name__)
LOG_MAX = 1 << 20  # bytes; a longer log of the server is put aside at start
QUICK_S = 5.0  # a server that ends within this time of its start counts as failed
QUICK_MAX = 5  # so many in a row, and calls fail at once instead of waiting for the next start
PAUSE_MAX_S = 5.0  # between two starts
LOCK_WAIT_S = 0.5  # a process that was just killed may need a moment to let go of its lock
LOCK_STEP_S = 0.01
READY_STEP_MS = 5  # the server says nothing when it is ready, so its socket is tried this often


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
            self._lock = _lock(self.settings)
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
            _end_leftover(self.settings)
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
            child = self._child = _spawn(self.settings)
        try:
            process.write_identity(self.settings.pidfile, child.pid)
            wait_ready(child, self.settings)
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


def _lock(settings: StoreSettings) -> IO[str]:
    """Only one process may serve ``state_dir``. The kernel lets go of the lock when we die."""
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = settings.lock.open("a+")
    except OSError as failure:
        raise UnavailableError(
            f"cannot use {failure.filename}: {failure.strerror}",
            "choose another [daemon] state_dir, or run as root",
        ) from failure
    deadline = time.monotonic() + LOCK_WAIT_S
    while not _flock(handle):
        if time.monotonic() > deadline:
            handle.seek(0)
            holder = handle.read().strip() or "unknown process"
            handle.close()
            raise UnavailableError(
                f"another vmnet ({holder}) already serves {settings.state_dir}",
                "stop it first, or ask it",
            )
        time.sleep(LOCK_STEP_S)  # flock(2) knows no time limit
    with suppress(OSError):  # for people only; a full disk is reported where it matters
        os.ftruncate(handle.fileno(), 0)
        os.write(handle.fileno(), f"process {os.getpid()}\n".encode())
    return handle


def _flock(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _end_leftover(settings: StoreSettings) -> None:
    """End the server of an earlier process of ours. We hold the lock, so nobody uses it any more."""
    who = process.read_identity(settings.pidfile)
    if who is None:
        return
    LOG.warning("ending ovsdb-server %d, left over from a killed process", who.pid)
    if not process.end(who):
        raise UnavailableError(f"cannot end the old ovsdb-server (process {who.pid})", "end it by hand")


def _spawn(settings: StoreSettings) -> subprocess.Popen[bytes]:
    _put_aside(settings.log)
    command = [
        "ovsdb-server",
        f"--remote=punix:{settings.socket}",
        f"--unixctl={settings.control}",
        f"--log-file={settings.log}",
        *("--no-chdir", "-vconsole:off", "-vsyslog:off", "-vfile:info"),
        str(settings.database),
    ]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            umask=0o077,  # the socket is for root alone, like the daemon's own
            start_new_session=True,  # a ^C is for us; we end the server in our own time
            preexec_fn=process.dies_with(os.getpid()),  # one prctl(2), nothing that could block
        )
    except FileNotFoundError:
        raise UnavailableError("ovsdb-server is not installed", dbfile.INSTALL_HINT) from None


def wait_ready(child: subprocess.Popen[bytes], settings: StoreSettings) -> None:
    """Return when ``child`` serves ``settings.socket``. Raises UnavailableError when it ends, WaitTimeoutError."""
    deadline = time.monotonic() + settings.timeout_s
    poller = select.poll()
    ended = os.pidfd_open(child.pid)
    poller.register(ended, select.POLLIN)
    try:
        while not _accepts(settings.socket):
            if poller.poll(READY_STEP_MS):
                raise UnavailableError(
                    f"ovsdb-server did not start: {_last_line(settings.log)}", f"see {settings.log}"
                )
            if time.monotonic() > deadline:
                raise WaitTimeoutError(
                    f"ovsdb-server did not open {settings.socket} within {settings.timeout_s:g} s",
                    f"see {settings.log}",
                )
    finally:
        os.close(ended)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _put_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_MAX:
        log.replace(log.with_name(f"{log.name}.1"))


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    return lines[-1].rpartition("|")[2] if lines else "it left no log"
