"""The steps of starting an ovsdb-server: the lock, what an earlier one left, the process, its readiness."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from vmnet.errors import UnavailableError, WaitTimeoutError
from vmnet.store import dbfile, process, schema
from vmnet.store.settings import StoreSettings

LOG = logging.getLogger(__name__)
LOG_MAX = 1 << 20  # bytes; a longer log of the server is put aside at start
_SUMMARY = "failed to configure databases"  # Open vSwitch 3.5 ends its log with it, behind the line that names the cause
LOCK_WAIT_S = 0.5  # a process that was just killed may need a moment to let go of its lock
LOCK_STEP_S = 0.01
ANSWER_S = 1.0
_LIST_DBS = json.dumps({"method": "list_dbs", "params": [], "id": 0}).encode()
_ANSWER_BYTES = 4096  # two names and an id
READY_STEP_MS = 5  # the server says nothing when it is ready, so its socket is tried this often


def lock(settings: StoreSettings) -> IO[str]:
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


def end_leftover(settings: StoreSettings) -> None:
    """End the server of an earlier process of ours. We hold the lock, so nobody uses it any more."""
    who = process.read_identity(settings.pidfile)
    if who is None:
        return
    LOG.warning("ending ovsdb-server %d, left over from a killed process", who.pid)
    if not process.end(who):
        raise UnavailableError(f"cannot end the old ovsdb-server (process {who.pid})", "end it by hand")


def spawn(settings: StoreSettings) -> subprocess.Popen[bytes]:
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
        while not _serves(settings.socket):
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


def _serves(path: Path) -> bool:
    """Whether the server lists our database (RFC 7047, 4.1.1).

    Open vSwitch 3.5 accepts connections before it has opened any, and may end because it cannot.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_S)
        try:
            probe.connect(str(path))
            probe.sendall(_LIST_DBS)
            return f'"{schema.NAME}"'.encode() in probe.recv(_ANSWER_BYTES)
        except OSError:
            return False


def _put_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_MAX:
        log.replace(log.with_name(f"{log.name}.1"))


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    said = [line.rpartition("|")[2] for line in lines]
    causes = [one for one in said if one != _SUMMARY]
    return (causes or said or ["it left no log"])[-1]
