"""The short way to a migration: what takes it, and that it needs no command-line library."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vmnet.cli import entry
from vmnet.cli.entry import ask, plain_migration
from vmnet.control_socket import DEFAULT_SOCKET


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["migrate", "vm1", "b"], ("vm1", "b", False)),
        (["migrate", "--json", "vm1", "b"], ("vm1", "b", True)),
        (["migrate", "vm1", "b", "--json"], ("vm1", "b", True)),
        (["migrate", "vm1"], None),
        (["migrate", "vm1", "b", "c"], None),
        (["migrate", "vm1", ""], None),
        (["migrate", "vm1", "b", "--dry-run"], None),
        (["migrate", "--json", "--json", "vm1", "b"], None),
        (["migrate", "--", "vm1", "b"], None),
        (["migrate", "-h"], None),
        (["status"], None),
        ([], None),
    ],
)
def test_what_is_a_plain_migration(words: list[str], found: tuple[str, str, bool] | None) -> None:
    assert plain_migration(words) == found


def test_it_says_the_same_as_the_long_way() -> None:
    def said(*words: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "vmnet.cli.entry", "migrate", "vm1", "b", *words]
        done = subprocess.run(argv, capture_output=True, text=True, env={"VMNET_SOCKET": "/nowhere/d.sock"})
        assert done.stdout == ""
        return done.returncode, done.stderr

    code, text = said()
    assert (code, text) == said("--max-downtime", "300")
    assert code == 5 and "no daemon answers on /nowhere/d.sock" in text


def test_it_loads_no_command_line_library() -> None:
    script = "import sys, vmnet.cli.entry, vmnet.cli.migration; sys.exit(any(m in sys.modules for m in ('click', 'rich')))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_asks_before_anything_is_loaded(tmp_path: Path) -> None:
    path = str(tmp_path / "d.sock")
    with socket.create_server(path, family=socket.AF_UNIX) as server:
        descriptor = ask(path, "vm-1.x", "b")
        assert descriptor is not None
        heard, _ = server.accept()
        with heard, socket.socket(fileno=descriptor):
            assert json.loads(heard.makefile().readline()) == {
                "op": "migrate",
                "vm": "vm-1.x",
                "destination": "b",
            }


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\u00fc", "a b"])
def test_what_would_have_to_be_quoted_goes_the_ordinary_way(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / "d.sock")
    with socket.create_server(path, family=socket.AF_UNIX):
        assert ask(path, name, "b") is None
        assert ask(path, "vm1", name) is None


def test_without_a_daemon_the_ordinary_way_says_so(tmp_path: Path) -> None:
    assert ask(str(tmp_path / "none"), "vm1", "b") is None


def test_knows_the_ordinary_socket() -> None:
    assert entry.DEFAULT_SOCKET == DEFAULT_SOCKET
