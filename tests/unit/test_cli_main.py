"""The command line's entry: every command is there, help is short, an error is one line and its exit code."""

import importlib
from collections.abc import Sequence

import click
import pytest
from click.testing import CliRunner

from vmnet.cli import main as module
from vmnet.cli.main import COMMANDS, cli
from vmnet.errors import ExitCode, NotFoundError, VmnetError


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_table_says(name: str) -> None:
    path, attribute, words = COMMANDS[name]
    assert isinstance(getattr(importlib.import_module(path), attribute), click.Command)
    assert words.endswith((".", "?"))
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output


def test_help_lists_them_all() -> None:
    done = CliRunner().invoke(cli, ["-h"])
    assert done.exit_code == 0
    listed = done.output.split("Commands:")[1]
    assert [
        line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "
    ] == list(COMMANDS)


def run(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]) -> int:
    monkeypatch.setattr("sys.argv", ["vmnet", *arguments])
    try:
        module.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["--version"], 0), (["no-such-command"], ExitCode.USAGE), (["plan"], ExitCode.USAGE)],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int) -> None:
    assert run(monkeypatch, arguments) == code


@pytest.mark.parametrize("error", [NotFoundError("no VM 'x'", "see `virsh list`"), VmnetError("oh")])
def test_an_error_is_one_line_and_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: VmnetError
) -> None:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(module, "cli", broken)
    assert run(monkeypatch, []) == error.code
    assert capsys.readouterr().err == f"vmnet: {error}\n"


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "cli", interrupted)
    assert run(monkeypatch, []) == ExitCode.ABORTED


def test_without_a_daemon_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    code = run(monkeypatch, ["status", "--socket", f"{tmp_path}/none.sock"])
    assert code == ExitCode.UNAVAILABLE
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
