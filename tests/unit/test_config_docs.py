"""docs/configuration.md and docs/exit-codes.md say everything that there is, and nothing else."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from vmnet.config import Config, parse
from vmnet.config.model import default_host_name
from vmnet.errors import ExitCode

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "configuration.md").read_text()


def names(kind: Any, prefix: str = "") -> set[str]:
    """Every setting's dotted name; NAME stands for a key that the user chooses."""
    found: set[str] = set()
    for one in fields(kind):
        section = one.metadata.get("section")
        place = f"{prefix}{one.name}" + (".NAME" if "key" in one.metadata else "")
        found |= names(section, place + ".") if section else {place}
    return found


def test_every_setting_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"^\| `([a-z]+\.[\w.]+)` \|", TEXT, re.MULTILINE))
    assert documented == names(Config)


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
def test_the_examples_parse(block: str) -> None:
    parse(block, "configuration.md")


def test_the_full_example_shows_the_defaults() -> None:
    block = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[1]
    raw = tomllib.loads(block)
    assert {name for name in raw if isinstance(raw[name], dict)} == {one.name for one in fields(Config)}
    config, default = parse(block, "configuration.md"), Config()
    for name in ("libvirt", "daemon", "hooks", "tls", "hold", "recorder", "switchover", "store", "bridges"):
        if name != "bridges":
            assert getattr(config, name) == getattr(default, name)
    assert (config.listen.address, config.listen.port) == (default.listen.address, default.listen.port)


def test_the_documented_defaults_and_ranges_hold() -> None:
    default = Config()
    for name, shown in re.findall(r"^\| `([a-z]+\.\w+)` \| `?([^`|]+?)`? \|", TEXT, re.MULTILINE):
        section, key = name.split(".")
        if section not in ("binding",) and shown not in (
            "short host name",
            "source address towards the peer",
            "none",
            "[]",
        ):
            value = getattr(getattr(default, section), key)
            assert shown == (str(value).lower() if isinstance(value, bool) else str(value)), name
    low, high = map(int, re.findall(r"(\d+) to (\d+) bytes a migration", TEXT)[0])
    for good in (low, high):
        parse(f"[hold]\nmax_bytes = {good}", "")


def test_the_default_host_name_is_a_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "a.example.org", "-x-", "\u00fc\u00fc", "", "x" * 64, "a b"):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        parse(f"[host]\nname = '{default_host_name()}'", "")


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (DOCS / "exit-codes.md").read_text(), re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == [(int(code), code.name) for code in ExitCode]
