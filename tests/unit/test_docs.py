"""What documents say must be so: diagrams as drawn from the table, links that lead somewhere, commands that exist."""

import re
import runpy
import stat
from pathlib import Path

import pytest

from vmnet.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])

OPERATORS = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("install", "troubleshooting", "lab", "hooks")),
]


def test_diagrams_are_those_of_the_table() -> None:
    redrawn = runpy.run_path(str(ROOT / "scripts" / "draw_diagrams.py"))["redrawn"]
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert redrawn(text) == text, "run .venv/bin/python scripts/draw_diagrams.py"
    with pytest.raises(ValueError, match="not exactly one place"):
        redrawn("no marks in here")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", OPERATORS, ids=lambda path: path.name)
def test_commands_that_are_named_exist(document: Path) -> None:
    named = set(re.findall(r"(?:^|[`$ /])vmnet ([a-z]+) ?", _code(document.read_text()), re.MULTILINE))
    assert named <= COMMANDS.keys()


def _code(text: str) -> str:
    """Only what is typed: first words of lines in code blocks, and inline code."""
    blocks = re.findall(r"^```(?:sh[^\n]*)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    typed = [
        line for block in blocks for line in block.splitlines() if re.match(r"(# |\$ |sudo )?vmnet ", line)
    ]
    inline = re.findall(r"`(vmnet [^`]+)`", text)
    return "\n".join([*typed, *inline])


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "clean", "help"])
def test_make_has_the_target(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", [".ci/run", "scripts/setup.sh", "scripts/isolated.sh"])
def test_scripts_can_be_run(script: str) -> None:
    assert (ROOT / script).stat().st_mode & stat.S_IXUSR


def test_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
    assert "make --no-print-directory test" in (ROOT / ".ci" / "run").read_text()
