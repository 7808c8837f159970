"""How docs/install.md is taken apart and followed; and that every block of it says where it belongs."""

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from vmnet.config import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/install.md").read_text()
HOSTS = ("a", "b")


def _module() -> ModuleType:
    """tests/machines is no package: it is collected on its own."""
    spec = importlib.util.spec_from_file_location("howto", ROOT / "tests/machines/howto.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["howto"] = module
    spec.loader.exec_module(module)
    return module


howto = _module()

TEXT = """# Page
## 1. First
```sh
one \\
    --more
two
```
## 2. Second
```sh a
three
```
```sh b ssh
four
```
```toml a /etc/x
[x]
y = "it's"
```
## Removing
```sh remove
five
```
"""


def test_blocks_know_their_heading_hosts_part_and_commands() -> None:
    found = list(howto.steps(TEXT, HOSTS))
    assert [(one.heading, one.hosts, one.part, one.path) for one in found] == [
        ("1. First", ("a", "b"), "", ""),
        ("2. Second", ("a",), "", ""),
        ("2. Second", ("b",), "ssh", ""),
        ("2. Second", ("a",), "", "/etc/x"),
        ("Removing", ("a", "b"), "remove", ""),
    ]
    assert found[0].commands == ("one --more", "two")


@pytest.mark.parametrize("info", ["sh a b c", "toml a", "python", "sh c ssh x"])
def test_a_block_that_does_not_say_where_is_an_error(info: str) -> None:
    with pytest.raises(ValueError, match="says neither host nor part"):
        list(howto.steps(f"# x\n```{info}\n1\n```\n", HOSTS))


def test_steps_run_in_order_on_their_hosts_and_parts_only_if_asked_for() -> None:
    ran: list[tuple[str, str]] = []

    def run(host: str, command: str) -> tuple[int, str]:
        ran.append((host, command))
        return 0, "said"

    lines: list[str] = []
    page = list(howto.steps(TEXT, HOSTS))
    howto.follow(page, run, replace={"two": "2"}, log=lines.append)
    assert [command for host, command in ran if host == "b"] == ["one --more", "2"]
    assert [command for host, command in ran if host == "a"][:3] == ["one --more", "2", "three"]
    assert lines[0] == "## 1. First" and "a# one --more\nsaid" in lines[1:5]
    ran.clear()
    howto.follow(page, run, parts=("remove", "ssh"), log=lines.append)
    assert ("b", "four") in ran and {ran[-2], ran[-1]} == {("a", "five"), ("b", "five")}


def test_a_file_is_written_as_it_stands(tmp_path: Path) -> None:
    text = TEXT.replace("/etc/x", str(tmp_path / "x"))

    def run(_host: str, command: str) -> tuple[int, str]:
        if not command.startswith("printf"):
            return 0, ""
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        return done.returncode, done.stderr

    howto.follow(list(howto.steps(text, HOSTS)), run, log=lambda _: None)
    assert tomllib.loads((tmp_path / "x").read_text()) == {"x": {"y": "it's"}}


def test_the_first_command_that_fails_ends_it_with_its_output() -> None:
    def run(_host: str, command: str) -> tuple[int, str]:
        return (3, "no such thing") if command == "two" else (0, "")

    with pytest.raises(howto.HowToError, match=r"1\. First: 'two' on a ended with 3:\nno such thing"):
        howto.follow(list(howto.steps(TEXT, HOSTS)), run, log=lambda _: None)


def test_the_page_can_be_followed() -> None:
    page = list(howto.steps(PAGE, HOSTS))
    assert {one.part for one in page} == {"", "ssh", "nftables", "firewalld", "vm", "update", "remove"}
    for one in page:
        for command in one.commands if not one.path else ():
            subprocess.run(["sh", "-n", "-c", command], check=True)


@pytest.mark.parametrize("host", HOSTS)
def test_the_configurations_of_the_page_are_good(host: str, tmp_path: Path) -> None:
    (one,) = (one for one in howto.steps(PAGE, HOSTS) if one.path and one.hosts == (host,))
    (tmp_path / "vmnet.toml").write_text(one.text)
    config = load(tmp_path / "vmnet.toml")
    (peer,) = config.peers.values()
    assert config.host.name == host and peer.address != config.listen.tunnel_address
