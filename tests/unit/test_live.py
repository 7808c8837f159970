"""The live picture of a migration prints what it is given, and takes none of it for an instruction."""

import pytest

from vmnet.cli import live


def test_brackets_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["vm[bold] stays on a: no such file [/etc/x]", "a note with [/] in it"]
    events = [
        {"event": "state", "state": "[/red]"},
        {"event": "verdict", "lines": lines},
    ]
    assert live.follow(iter(events), "vm[bold]", "b[/b]") == events[-1]
    assert capsys.readouterr().out.splitlines() == lines
