"""What an operator's Faucet configuration says, merged as Faucet does; and what Faucet says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller_bridge.rerouters import faucet_config
from controller_bridge.rerouters.faucet_config import Interface
from controller_bridge.rerouters.faucet_metrics import running
from controller_bridge.rerouters.settings import Settings
from vmnet.errors import ConfigError, PeerError

TOP, OURS = Path("/etc/faucet/faucet.yaml"), Path("/etc/faucet/vmnet.yaml")
FILES = {
    TOP: """\
# Ours since 2019, do not touch
include:
    - sites/east.yaml  # the east
    - 'vmnet.yaml'
include-optional: [gone.yaml]
vlans:
    office: {vid: 0x64}
    "200": {}
dps:
    sw1:
        dp_id: 0x1
        interfaces:
            1: {native_vlan: office, acl_in: old}
            uplink: {number: 24, tagged_vlans: [office, 200], acls_in: [vmnet-sw1-24, allowed]}
        interface_ranges:
            1-3,7: {native_vlan: 200, description: rest}
""",
    Path(
        "/etc/faucet/sites/east.yaml"
    ): "dps:\n    sw2: {dp_id: 12:34:56, interfaces: {5: {stack: {dp: sw1, port: 1}}}}\n",
    OURS: "acls: {}\n",
}


def read(path: Path) -> str:
    try:
        return FILES[path]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory") from None


def test_a_configuration_in_several_files() -> None:
    fabric = faucet_config.load(TOP, read)
    assert set(fabric.datapaths) == {"sw1", "sw2"}
    assert fabric.files == (TOP, Path("/etc/faucet/sites/east.yaml"), OURS)
    sw1 = fabric.datapaths["sw1"]
    assert set(sw1) == {1, 2, 3, 7, 24}
    assert sw1[1] == Interface(1, "1", 100, acls=("old",))
    assert sw1[24] == Interface(24, "uplink", None, frozenset({100, 200}), acls=("vmnet-sw1-24", "allowed"))
    assert sw1[7].native == 200
    assert fabric.interface("sw1", "uplink") == fabric.interface("sw1", "24") == sw1[24]
    assert fabric.datapaths["sw2"][5].tags(100), "a stacking link carries all"
    assert fabric.vid("office") == 100
    with pytest.raises(ConfigError, match="no VLAN 'guest'; it has 200, office"):
        fabric.vid("guest")


def test_a_copy_that_includes_another_file_in_the_place_of_ours_is_the_same_otherwise() -> None:
    named = faucet_config.included(TOP, FILES[TOP], OURS)
    assert named.naming(Path("/x/.new")) == FILES[TOP].replace("'vmnet.yaml'", '"/x/.new"')
    with pytest.raises(
        ConfigError, match=r"does not include /etc/faucet/other.yaml; add to it:  include: \[/etc/"
    ):
        faucet_config.included(TOP, FILES[TOP], Path("/etc/faucet/other.yaml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dps: [", "/x is no YAML: while parsing"),
        ("just words", "/x has no tables"),
        ("include: [x]", "/x includes /x again"),
        ("include: [y]", "cannot read /y"),
        ("dps: {a: {interfaces: {one: {}}}}", "a, interface one: 'one' is no number"),
        ("vlans: {office: {vid: many}}", "VLAN office: 'many' is no number"),
        ("dps: {a: {interfaces: {1: {native_vlan: lab}}}}", "no VLAN 'lab'"),
    ],
)
def test_what_makes_no_sense(text: str, says: str) -> None:
    def only(path: Path) -> str:
        if path == Path("/x"):
            return text
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(ConfigError, match=says) as caught:
        faucet_config.load(Path("/x"), only)
    assert "\n" not in str(caught.value)


METRICS = """\
# HELP faucet_config_hash_info file hashes for last successful config
# TYPE faucet_config_hash_info gauge
faucet_config_hash_info{config_files="/f/faucet.yaml,/f/vmnet.yaml",error="",hashes="aa,bb"} 1.0
faucet_config_load_error 0.0
faucet_config_applied 1.0
faucet_config_reload_requests_total 3.0
faucet_config_reload_cold_total{dp_id="0x1",dp_name="s1"} 1.0
dp_status{dp_id="0x1",dp_name="s1"} 1.0
dp_status{dp_id="0x2",dp_name="s2"} 0.0
learned_l2_port{dp_id="0x1",dp_name="s1",eth_src="52:54:00:00:00:01",vid="100"} 2.0
"""


def test_what_faucet_says_of_itself() -> None:
    now = running(METRICS)
    assert now.hashes == {"/f/faucet.yaml": "aa", "/f/vmnet.yaml": "bb"}
    assert (now.failed, now.reloads, now.cold, now.up) == (False, 3, {"s1": 1}, {"s1"})
    assert now.learned == {("s1", "52:54:00:00:00:01"): 2}
    with pytest.raises(PeerError, match="this is no Faucet"):
        running("python_info 1.0\n")
    with pytest.raises(PeerError, match="'x' is no number"):
        running("faucet_config_load_error x\n")


def test_settings_are_read_whole() -> None:
    given = Settings(
        {"config": "relative", "limit_s": True, "metrics": "localhost:9302", "hosts": "a", "odd": 1}
    )
    for asked, says in (
        (lambda: given.path("config"), "config: relative does not begin with /"),
        (lambda: given.seconds("limit_s", 1), "limit_s is not between 0 and 3600 seconds"),
        (lambda: given.url("metrics"), "is no address of an HTTP service"),
        (lambda: given.table("hosts"), "hosts is not a table"),
        (lambda: given.text("file"), r"file is missing; see docs/rerouters.md"),
        (lambda: given.texts({"s1": 1.5}, "hosts.a"), r"hosts.a.s1 is neither text nor a number"),
        (given.done, "has no odd; known are config"),
    ):
        with pytest.raises(ConfigError, match=says):
            asked()
