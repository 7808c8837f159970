"""The short way to a migration: what takes it, and that it needs no command-line library."""

import subprocess
import sys

import pytest

from vmnet.cli.entry import plain_migration


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
