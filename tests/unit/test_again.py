"""Failed tests with real hosts are run again, and a run with one that fails again fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import again
import pytest

TESTS = Path(again.__file__).parent
FAILS_AT_FIRST = """
from pathlib import Path

def test_it():
    seen = Path(__file__).with_suffix(".seen")
    count = len(seen.read_text()) if seen.exists() else 0
    seen.write_text("x" * (count + 1))
    assert count {holds}
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (folder / "again.py").write_text((TESTS / "again.py").read_text())
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        *options,
    ]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def made(folder: Path, group: str, holds: str) -> None:
    (folder / group).mkdir()
    (folder / group / "test_one.py").write_text(FAILS_AT_FIRST.format(holds=holds))


def test_one_that_passes_twice_afterwards_is_named_and_the_run_passes(tmp_path: Path) -> None:
    made(tmp_path, "scenario", ">= 1")
    done = run(tmp_path, "--again", "2")
    assert done.returncode == 0, done.stdout
    assert "FAILED scenario/test_one.py::test_it" in done.stdout
    assert "AGAIN scenario/test_one.py::test_it" in done.stdout
    assert (tmp_path / "scenario" / "test_one.seen").read_text() == "xxx"


@pytest.mark.parametrize(
    ("group", "holds", "runs"),
    [
        ("scenario", ">= 2", 2),  # fails in its second run: there is no third
        ("scenario", "in (1, 9)", 3),
        ("unit", ">= 1", 1),
    ],
)
def test_one_that_fails_again_or_needs_no_real_time_fails_the_run(
    tmp_path: Path, group: str, holds: str, runs: int
) -> None:
    made(tmp_path, group, holds)
    done = run(tmp_path, "--again", "2")
    assert done.returncode == 1, done.stdout
    assert "AGAIN" not in done.stdout
    assert len((tmp_path / group / "test_one.seen").read_text()) == runs


def test_without_the_option_nothing_is_run_again(tmp_path: Path) -> None:
    made(tmp_path, "scenario", ">= 1")
    assert run(tmp_path).returncode == 1
    assert (tmp_path / "scenario" / "test_one.seen").read_text() == "x"


@pytest.mark.parametrize(
    ("failed", "again_"),
    [
        ([], 0),
        (["tests/scenario/test_a.py::test_b[x/y]"], 1),
        (["tests/unit/test_a.py::test_b[/scenario/x]"], 0),
        (["tests/scenario/test_a.py::test_b", "tests/sim/test_c.py::test_d"], 0),
        ([f"tests/machines/test_a.py::test_{n}" for n in range(again.MOST)], again.MOST),
        ([f"tests/machines/test_a.py::test_{n}" for n in range(again.MOST + 1)], 0),
    ],
)
def test_which_may_be_run_again(failed: list[str], again_: int) -> None:
    assert len(again.candidates(failed)) == again_
