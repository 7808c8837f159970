"""Configuration: an empty file works, a wrong one is refused whole with one line."""

from pathlib import Path

import pytest

from vmnet.config import Config, load, parse
from vmnet.errors import ConfigError, ExitCode

CONTRACT = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_empty_is_all_defaults() -> None:
    assert parse("", "x") == Config()


def test_missing_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(tmp_path / "none.toml") == Config()


def test_the_contract_parses_with_its_own_defaults() -> None:
    text = CONTRACT.read_text().split("```toml\n")[1].split("```")[0]
    config = parse(text, "architecture.md")
    default = Config()
    same = ("libvirt", "daemon", "hooks", "tls", "hold", "recorder", "switchover", "store")
    assert all(getattr(config, name) == getattr(default, name) for name in same)
    assert config.peers["b"].libvirt_uri == "qemu+tcp://10.0.0.2/system"
    assert config.bridges["br0"].segment == "lan"
    assert config.binding["br-blue"] == "br0"
    assert config.listen.tunnel_address == "10.0.0.1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[hold]\nmax_byte = 1", "f: hold.max_byte: is not a setting; did you mean max_bytes?"),
        ("[hodl]\n", "f: hodl: is not a setting; did you mean hold?"),
        ("hold = 3", "f: hold is not a table; write [hold] and its settings below it"),
        ("peers = 3", "f: peers: is not a table; write [peers]"),
        ("[hold]\nmax_bytes = 'x'", "f: hold.max_bytes: is a text, not a whole number; write a whole number"),
        (
            "[hold]\nmax_bytes = true",
            "f: hold.max_bytes: is true/false, not a whole number; write a whole number",
        ),
        ("[listen]\nport = 0", "f: listen.port: 0 is out of range; give 1 to 65535"),
        ("[hooks]\ntimeout_ms = 1", "f: hooks.timeout_ms: 1 is out of range; give 10 to 60000 ms"),
        ("[hooks]\nwhen_daemon_away = 'no'", "use one of continue, refuse"),
        ("[listen]\naddress = 'b'", 'f: listen.address: "b" is not an IP address; write'),
        ("[listen]\naddress = 1", "f: listen.address: is a whole number, not a text in quotes"),
        ("[listen]\ntunnel_address = '0.0.0.0'", "is not the address of one host; write its unicast address"),
        ("[peers.b]\n", 'f: peers.b.address: is missing; add address = "..."'),
        ("[peers.'b/..']\naddress='10.0.0.1'", 'f: peers.b/..: "b/.." is not a host name'),
        ('[peers."b\\nc"]\naddress="10.0.0.1"', "f: peers.'b\\nc': "),
        ("[bridges.'a b']\n", '"a b" is not an interface name'),
        ("[daemon]\nsocket = 'x'", 'f: daemon.socket: "x" is not an absolute path; begin it with "/"'),
        (f"[daemon]\nsocket = '/{'x' * 107}'", "107 bytes"),
        ("[store]\nremotes = ['tcp']", '"tcp" is not an OVSDB remote'),
        ("[libvirt]\nuri = 'qemu'", 'f: libvirt.uri: "qemu" is not a URI'),
        ("[host]\nname = 'a'\n[peers.a]\naddress = '10.0.0.1'", "f: peers.a: is this host itself; remove it"),
        (
            "[peers.b]\naddress='10.0.0.1'\n[peers.c]\naddress='10.0.0.1'",
            "has the address and port of peers.b",
        ),
        ("[", "f: not TOML: "),
    ],
)
def test_one_line_names_file_setting_cause_and_cure(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code is ExitCode.CONFIG


def test_all_problems_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"hold\.max_bytes: .*\(and 2 more\)"):
        parse("[hold]\nmax_bytes = 1\nmax_packets = 1\n[listen]\nport = -1", "f")


def test_unreadable_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="byte 0 is not UTF-8"):
        load(tmp_path / "x")


def test_config_cannot_be_changed() -> None:
    config = parse("[peers.b]\naddress='10.0.0.1'", "f")
    with pytest.raises(TypeError):
        config.peers["c"] = config.peers["b"]  # type: ignore[index]
