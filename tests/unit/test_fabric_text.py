"""A fabric's file, matches as people write them, and where packets go by given tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge import address, fabric, trace
from controller_bridge.fabric import End
from controller_bridge.openflow import action, text
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Field, Match
from controller_bridge.topology import Place, Topology
from vmnet.errors import ConfigError, NotFoundError

GOOD = """
links = ["s1:2 s2:s1", "s1:3 s3:1"]
[switches]
s1 = "tcp:192.0.2.1"
s2 = "unix:/run/openvswitch/s2.mgmt"
s3 = "ssl:[2001:db8::3]:6640"
[hosts]
a = "s3:host-a"
"""


def test_a_fabric_is_read(tmp_path: Path) -> None:
    file = tmp_path / "fabric.toml"
    file.write_text(GOOD)
    found = fabric.read(file)
    assert [str(one) for one in found.switches.values()] == [
        "tcp:192.0.2.1:6653", "unix:/run/openvswitch/s2.mgmt", "ssl:[2001:db8::3]:6640",
    ]  # fmt: skip
    assert found.links[0] == (End("s1", "2"), End("s2", "s1"))
    assert found.hosts == {"a": End("s3", "host-a")}


BAD = {
    "no toml": ("links = [", "fabric.toml: "),
    "an unknown setting": ('ports = 3\n[switches]\ns1 = "tcp:h"', "unknown setting 'ports'"),
    "no switches": ("links = []", r"no \[switches\]"),
    "a number for a switch": ("[switches]\ns1 = 3", "no table of texts"),
    "an address of nothing": ('[switches]\ns1 = "http://x"', "'http://x' is no switch's address"),
    "a link of three": ('links = ["s1:1 s1:2 s1:3"]\n[switches]\ns1 = "tcp:h"', "is no link"),
    "a link without a port": ('links = ["s1 s1:2"]\n[switches]\ns1 = "tcp:h"', "'s1' is no port of a switch"),
    "a link to nowhere": ('links = ["s1:1 s9:2"]\n[switches]\ns1 = "tcp:h"', "no switch 's9'; known are s1"),
    "a port twice": (
        'links = ["s1:1 s2:1", "s1:1 s2:2"]\n[switches]\ns1 = "tcp:h"\ns2 = "tcp:h"',
        "s1:1 is used twice",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_said_in_one_line(what: str, tmp_path: Path) -> None:
    file = tmp_path / "fabric.toml"
    said, wanted = BAD[what]
    file.write_text(said)
    with pytest.raises(ConfigError, match=wanted) as caught:
        fabric.read(file)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the fabric"):
        fabric.read(tmp_path / "none.toml")


@given(st.text(max_size=30))
def test_addresses_are_addresses_or_refused(words: str) -> None:
    try:
        found = address.parse(words)
    except ConfigError as error:
        assert "\n" not in str(error) or "\n" in repr(words)
        return
    assert address.parse(str(found)) == found


MATCHES = {
    ("eth_dst=52:54:00:00:00:01",): Match.of(eth_dst=bytes.fromhex("525400000001")),
    ("nw_dst=10.0.0.0/24", "udp"): text.match_of(["ipv4_dst=10.0.0.0/24", "eth_type=0x800", "ip_proto=17"]),
    ("ipv6_dst=2001:db8::1",): text.match_of(["ipv6", "ipv6_dst=2001:db8::1"]),
    ("in_port=3", "arp"): Match.of(in_port=3, eth_type=0x0806),
    (): Match(),
}


@pytest.mark.parametrize("words", MATCHES)
def test_matches_as_people_write_them(words: tuple[str, ...]) -> None:
    found = text.match_of(words)
    assert found == MATCHES[words]
    shown = text.match_text(found)
    assert text.match_of(shown.split(",") if shown and "/" not in shown else words) == found


@pytest.mark.parametrize(
    "word",
    [
        "eth_dst=52:54",
        "eth_dst",
        "speed=3",
        "nw_dst=2001:db8::1",
        "udp_dst=70000",
        "in_port=-1",
        "",
        "=",
        "ipv4_dst=10.0.0.0/99",
    ],
)
def test_words_that_are_no_match(word: str) -> None:
    with pytest.raises(ConfigError):
        text.match_of([word])


def links(*pairs: tuple[str, str]) -> list[tuple[Place, Place]]:
    """``("s1", "s2")``: by port 2 of s1 and port 1 of s2."""
    return [(Place(one, int(other[1:])), Place(other, int(one[1:]))) for one, other in pairs]


SQUARE = Topology(["s1", "s2", "s3", "s4"], links(("s1", "s2"), ("s1", "s3"), ("s2", "s4"), ("s3", "s4")))
START, END = Place("s1", 100), Place("s4", 200)


def names(path: object) -> list[str]:
    return [hop.switch for hop in path]  # type: ignore[attr-defined]


def test_shortest_paths() -> None:
    assert names(SQUARE.shortest(START, END)) == ["s1", "s2", "s4"]
    assert names(SQUARE.shortest(START, END, via=["s3"])) == ["s1", "s3", "s4"]
    assert names(SQUARE.shortest(START, END, avoid={"s2"})) == ["s1", "s3", "s4"]
    assert SQUARE.shortest(START, Place("s1", 5)) == (("s1", 100, 5),)
    with pytest.raises(NotFoundError, match="no path from s1 to s4 without s2, s3"):
        SQUARE.shortest(START, END, avoid={"s2", "s3"})
    assert SQUARE.distances("s1") == {"s1": 0, "s2": 1, "s3": 1, "s4": 2}


def entry(port: int, priority: int = 1, **match: int) -> Flow:
    return Flow(priority, Match.of(**match), action.apply([action.output(port)]))


def test_a_walk_by_the_tables() -> None:
    tables = {
        "s1": [entry(2), entry(3, 5, eth_type=0x0806)],
        "s2": [entry(4)],
        "s4": [entry(200)],
        "s3": [entry(1)],
    }
    walk = trace.walk(tables, SQUARE, START, {})
    assert (names(walk.path), walk.end) == (["s1", "s2", "s4"], END)
    arp = trace.walk(tables, SQUARE, START, {Field.ETH_TYPE: b"\x08\x06"})
    assert (names(arp.path)[:2], arp.end) == (["s1", "s3"], None)
    assert arp.why == "s3 drops it: it would go back where it came from"


WHYS = {
    "s1 has no entry for it": {},
    "s1 drops it": {"s1": [Flow(1, Match(), b"")]},
    "s1 asks its controller": {"s1": [entry(action.PORT_CONTROLLER)]},
    "s1 sends it to 2 ports": {"s1": [Flow(1, Match(), action.apply([action.output(2), action.output(3)]))]},
    "s2 has no entry for it": {"s1": [entry(2)]},
    "s2 drops it: it would go back where it came from": {"s1": [entry(2)], "s2": [entry(1)]},
    "it goes in a circle, back to s1": {
        "s1": [entry(2)],
        "s2": [entry(4)],
        "s4": [entry(3)],
        "s3": [entry(1)],
    },
}


@pytest.mark.parametrize("why", WHYS)
def test_why_a_walk_ends(why: str) -> None:
    start = START if "circle" not in why else Place("s1", 3)
    assert trace.walk(WHYS[why], SQUARE, start, {}).why == why
