"""The controller's settings: read, or refused in one line."""

from __future__ import annotations

import re
import tomllib
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller_bridge import settings
from controller_bridge.fabric import End
from controller_bridge.main import main
from vmnet.errors import ConfigError

GOOD = """
listen = ["tcp:127.0.0.1", "unix:/run/openvswitch/controller.sock"]
plain = true
gateways = ["10.1.0.254", "fd01::fe"]
outside = ["s1:host-a"]
links = ["s1:1"]
key = "/tmp/key"
[switches]
s1 = "00000000000000aB"
[hosts]
a = "s1:host-a"
[table_sizes]
s1 = 2000
[api]
listen = ["unix:/run/vmnet-controller/controller.sock", "ssl:[::]"]
[tls]
ca = "/x/ca.pem"
"""


def test_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text(GOOD)
    found = settings.read(file)
    assert [str(one) for one in found.listen] == [
        "tcp:127.0.0.1:6653",
        "unix:/run/openvswitch/controller.sock",
    ]
    assert found.gateways == {ip_address("10.1.0.254"), ip_address("fd01::fe")}
    assert (found.names, found.outside, found.links) == (
        {0xAB: "s1"},
        (End("s1", "host-a"),),
        (End("s1", "1"),),
    )
    assert (found.hosts, found.table_sizes) == ({"a": End("s1", "host-a")}, {"s1": 2000})
    assert [str(one) for one in found.api] == ["unix:/run/vmnet-controller/controller.sock", "ssl:[::]:6654"]
    assert (found.tls.ca, found.tls.key) == (Path("/x/ca.pem"), Path("/etc/vmnet/pki/host.key"))
    assert "good" in CliRunner().invoke(main, ["--config", str(file), "--check"]).output


def test_all_have_defaults() -> None:
    assert str(settings.parse({}).listen[0]) == "ssl:[::]:6653"


BAD = {
    "unknown": ("color = 1", "unknown setting 'color'"),
    "listen": ('listen = ["http://x"]', "'http://x' is no switch's address"),
    "gateway": ('gateways = ["x"]', "'x' is no IP address"),
    "datapath": ('[switches]\ns1 = "xyz"', "'xyz' is no datapath identifier"),
    "outside": ('outside = ["s9:1"]\n[switches]\ns1 = "1"', "there is no switch 's9'"),
    "link": ('links = ["s9:1"]', "there is no switch 's9'"),
    "link or not": (
        'links = ["s1:1"]\noutside = ["s1:1"]\n[switches]\ns1 = "1"',
        "s1:1 is among 'links', and 'outside'",
    ),
    "link or host": (
        'links = ["s1:1"]\n[switches]\ns1 = "1"\n[hosts]\na = "s1:1"',
        "it is either a link or not",
    ),
    "host": ('[hosts]\na = "s9:1"', "there is no switch 's9'"),
    "host's name": ('[hosts]\n"a b" = "s1:1"\n[switches]\ns1 = "1"', "'a b' under .hosts. is no host's name"),
    "hosts at one port": ('[hosts]\na = "s1:1"\nb = "s1:1"\n[switches]\ns1 = "1"', "two .hosts. at one port"),
    "table size": ("[table_sizes]\ns1 = 3\n[switches]\ns1 = '1'", "'s1' is no whole number from 16"),
    "table of nobody": ("[table_sizes]\ns9 = 300", "there is no switch 's9'"),
    "plain": ("listen = ['tcp:127.0.0.1']", "anybody can say that he is any switch; use ssl:"),
    "plain what": ("plain = 1", "'plain' is neither true nor false"),
    "plain api": ("[api]\nlisten = ['tcp:127.0.0.1']", "anybody can say that he is any host; use ssl:"),
    "api": ("[api]\ncolor = 1", "has other settings than listen"),
    "tls": ('[tls]\ncolor = "x"', "unknown setting 'tls.color'"),
    "kind": ("gateways = 3", "'gateways' is no list of texts"),
    "no toml": ("listen = [", "controller.toml: "),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_said_in_one_line(what: str, tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    said, wanted = BAD[what]
    file.write_text(said)
    with pytest.raises(ConfigError, match=wanted) as caught:
        settings.read(file)
    assert "\n" not in str(caught.value)
    assert CliRunner().invoke(main, ["--config", str(file)]).exit_code == 3


def test_the_key_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "state" / "lldp.key"
    key = settings.lldp_key(file)
    assert len(key) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert settings.lldp_key(file) == key
    file.write_bytes(b"short")
    with pytest.raises(ConfigError, match="is no key: 5 bytes"):
        settings.lldp_key(file)


def test_the_documented_settings_are_good() -> None:
    text = (Path(__file__).parents[2] / "docs" / "openflow.md").read_text()
    (block,) = (one for one in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "packets_per_s" in one)
    found = settings.parse(tomllib.loads(block))
    assert found.table_sizes and found.hosts and found.api and found.outside
