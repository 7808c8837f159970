"""``[rerouter.settings]`` of the rerouter ``ovn``: what is taken, what is refused and how; whatever it is, nothing else is raised."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.rerouters.ovn_settings import OvnSettings, parse
from vmnet.errors import ConfigError

TLS = {name: f"/etc/vmnet/{name}.pem" for name in ("tls_ca", "tls_certificate", "tls_key")}


def test_nothing_is_needed() -> None:
    made = parse({})
    assert made == OvnSettings()
    assert made.chassis_of("host") == "host"


def test_all_of_them() -> None:
    made = parse(
        {
            "northbound": "ssl:192.0.2.1:6641,ssl:[2001:db8::1]:6641",
            "southbound": "tcp:192.0.2.1:6642",
            "chassis": {"host": "chassis"},
            "ports": {"52:54:00:00:00:AA": "port"},
            "confirm": ["gateway"],
            "activation": "none",
            "at_cut_over": "none",
            "limit_s": 3,
            **TLS,
        }
    )
    assert made.chassis_of("host") == "chassis"
    assert made.ports == {"52:54:00:00:00:aa": "port"}
    assert made.confirm == ("gateway",)
    assert made.tls == tuple(TLS.values())
    assert (made.activation, made.at_cut_over, made.limit_s) == ("none", "none", 3.0)


REMOTES = (
    "",
    "unix:sock",
    "tcp:host",
    "tcp::1",
    "ptcp:6641",
    "tcp:a:1,",
    "tcp:a:1 ",
    "tcp:a:123456",
    6641,
    None,
    ["tcp:a:1"],
)
TABLES = ("a", ["a"], {"a": ""}, {"a": 1}, {"": "b"}, {"a": "b,c"}, {"a": "b\n"})
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"nothbound": "x"}, "has no 'nothbound'; it takes activation, at_cut_over, chassis,"),
    ({"tls": TLS}, "has no 'tls'"),
    *(
        ({name: value}, f"{name}: unix:/PATH")
        for name in ("northbound", "southbound")
        for value in REMOTES
    ),
    ({"northbound": "ssl:192.0.2.1:6641"}, "ssl: needs tls_ca"),
    ({"southbound": "ssl:192.0.2.1:6641"}, "ssl: needs tls_ca"),
    *(({"chassis": value}, "chassis: a table of names") for value in TABLES),
    ({"ports": {"52:54:00:00:00": "p"}}, "ports: MAC addresses as keys"),
    ({"ports": {"52:54:00:00:00:01": 7}}, "ports: a table of names"),
    *(({"confirm": value}, "confirm: a list of chassis") for value in ("a", [1], [""], ["a,b"], {"a": "b"}, None)),
    *(({"activation": value}, "activation: one of rarp, none") for value in ("garp", "", None, True, [])),
    *(({"at_cut_over": value}, "at_cut_over: one of shrink, none") for value in ("rarp", {}, 1)),
    *(({"limit_s": value}, "limit_s: seconds, at most 600") for value in (0, -1, 601, "3", True, None, float("nan"), float("inf"))),
    *(({**TLS, name: value}, f"{name}: a file's whole path") for name in TLS for value in (None, "", "ca.pem", 3)),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "words"), WRONG, ids=str)
def test_what_is_wrong_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["tcp:a:1", "rarp", "/x"])
)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALAR, inner, max_size=3)
)
NAMES = st.sampled_from([*OvnSettings.__dataclass_fields__, *TLS])


@given(st.dictionaries(NAMES | SCALAR, VALUE))
def test_whatever_is_written_there(settings: dict[Any, Any]) -> None:
    with suppress(ConfigError):
        made = parse(settings)
        assert 0 < made.limit_s <= 600
        assert all("," not in one for one in (*made.chassis.values(), *made.confirm))


def test_the_example_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "rerouters.md").read_text()
    example = text.split("## OVN", 1)[1].split("```toml\n", 1)[1].split("```", 1)[0]
    rerouter = tomllib.loads(example)["rerouter"]
    assert rerouter["kind"] == "ovn"
    assert parse(rerouter["settings"]).confirm
