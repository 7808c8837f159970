"""Which of FRR's daemons are started, and in which order (:mod:`vmnet.lab.frr_programs`)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from vmnet.lab.frr_programs import innermost, installed, private_argv, with_manager


def test_frr_8_has_no_manager(tmp_path: Path) -> None:
    (tmp_path / "zebra").touch()
    assert installed(programs=tmp_path)
    assert with_manager(("zebra", "staticd"), tmp_path) == ("zebra", "staticd")


def test_a_manager_comes_first(tmp_path: Path) -> None:
    for name in ("zebra", "mgmtd"):
        (tmp_path / name).touch()
    assert with_manager(("zebra", "staticd"), tmp_path) == ("mgmtd", "zebra", "staticd")


def test_no_frr(tmp_path: Path) -> None:
    assert not installed(programs=tmp_path)


def test_a_daemon_gets_no_option_that_a_release_lacks(tmp_path: Path) -> None:
    for daemon in ("zebra", "staticd", "bfdd", "mgmtd"):
        argv = private_argv(tmp_path, daemon, "--log", "stdout")
        options = argv[argv.index(f"/usr/lib/frr/{daemon}") + 1 :]
        assert options == ["-u", "frr", "-g", "frr", "-P", "0", "--log", "stdout"]


def test_the_innermost_process_is_the_daemon() -> None:
    guards = subprocess.Popen(["sh", "-c", 'sh -c "sleep 60; true"; true'], start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while Path(f"/proc/{innermost(guards.pid)}/comm").read_text() != "sleep\n":
            assert time.monotonic() < deadline, "no sleep below its shells within 10 s"
    finally:
        os.killpg(guards.pid, signal.SIGKILL)
        guards.wait()
