"""What the OVN rerouter decides: which port, what is written to it, what is put back."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.rerouters import ovn_plan as plan
from controller_bridge.rerouters.base import GROUP
from controller_bridge.rerouters.ovn_plan import ACTIVATION, KEPT, REQUESTED, Change, Ends, Place, Port
from vmnet.errors import RefusedError

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
ENDS = Ends("a", "b")
AT_A = Place("a")
PORT = Port("vm", "", (f"{MAC} 10.0.0.1 fd00::1",), {"mcast_flood": "true"}, {"owner": "me"})
OPTIONS = st.dictionaries(
    st.sampled_from([REQUESTED, ACTIVATION, "qos_burst"]), st.sampled_from(["a", "rarp", ""])
)


def changed(port: Port, change: Change) -> Port:
    """As OVSDB does it."""
    return replace(
        port,
        options=merged(dict(port.options), change.options),
        external_ids=merged(dict(port.external_ids), change.external_ids),
    )


def merged(there: dict[str, str], wanted: plan.Values) -> dict[str, str]:
    for key, value in wanted.items():
        if value is None:
            there.pop(key, None)
        else:
            there[key] = value
    return there


def prepare(port: Port = PORT, move: str = "m", activation: str = "rarp", place: Place = AT_A) -> Port:
    return changed(port, plan.prepared(port, move, ENDS, place, activation))


def test_a_whole_move() -> None:
    ready = prepare()
    assert ready.options == {REQUESTED: "a,b", ACTIVATION: "rarp", "mcast_flood": "true"}
    assert prepare(ready) == ready
    assert prepare(ready, place=Place("a", frozenset("b"))) == ready
    opened = changed(ready, plan.both(ready, "a", "b"))
    assert opened.options == {REQUESTED: "a,b", "mcast_flood": "true"}
    cut = changed(opened, plan.shrunk(opened, "m", "b"))
    assert cut.options[REQUESTED] == "b"
    done = changed(cut, plan.finished(cut, "m", ENDS))
    assert done == replace(PORT, options={"mcast_flood": "true", REQUESTED: "b"})
    assert plan.finished(done, "m", ENDS) == plan.NOTHING
    assert plan.moved_by([done], "m", [MAC]) == []


@given(OPTIONS, st.sampled_from(["rarp", "none"]), st.booleans(), st.booleans())
def test_rolled_back_it_is_as_before(
    options: dict[str, str], activation: str, twice: bool, cut: bool
) -> None:
    port = replace(PORT, options=options)
    now = prepare(port, activation=activation)
    if twice:
        now = prepare(now, activation=activation)
    if cut:
        now = changed(now, plan.shrunk(now, "m", "b"))
    assert plan.moved_by([now], "m", []) == [now]
    assert changed(now, plan.restored(now, "m")) == port


def test_activation_only_if_wanted() -> None:
    assert ACTIVATION not in prepare(replace(PORT, options={ACTIVATION: "rarp"}), activation="none").options


def test_a_port_that_is_not_there_or_moves() -> None:
    for port, place, words in (
        (PORT, Place("c"), "port vm is on chassis c, not on a"),
        (PORT, Place(""), "port vm is on no chassis, not on a"),
        (replace(PORT, options={REQUESTED: "a,c"}), AT_A, "on several chassis already: a,c"),
    ):
        with pytest.raises(RefusedError, match=words):
            plan.prepared(port, "m", ENDS, place, "rarp")
    ready = prepare()
    with pytest.raises(RefusedError, match="moves already"):
        prepare(ready, "other")
    for decide in (plan.of_move, plan.restored, lambda port, move: plan.finished(port, move, ENDS)):
        with pytest.raises(RefusedError, match="by migration m, not by other"):
            decide(ready, "other")
        with pytest.raises(RefusedError, match="by no migration, not by m; prepare it first"):
            decide(PORT, "m")


@given(
    st.text()
    | st.sampled_from(["[]", '["m"]', '["m",1,null]', '{"a":1,"b":2,"c":3}', "[null,null,null]", '"abc"'])
)
def test_what_is_kept_may_be_anything(text: str) -> None:
    port = replace(PORT, external_ids={KEPT: text})
    with pytest.raises(RefusedError, match="is not as vmnet wrote it"):
        plan.before(port)
    with pytest.raises(RefusedError):
        plan.moved_by([port], "m", [MAC.upper()])
    assert plan.moved_by([port], "m", [OTHER]) == []


def test_the_port_of_an_address() -> None:
    second = Port("second", "", ("unknown", f"{OTHER.upper()} dynamic", ""), {}, {})
    ports = [PORT, second, Port("up", "router", ("router",), {}, {})]
    assert plan.find(ports, [MAC.upper(), OTHER, MAC], {}) == [PORT, second]
    assert plan.find(ports, ["02:00:00:00:00:07"], {"02:00:00:00:00:07": "second"}) == [second]
    for macs, configured, words in (
        (["02:00:00:00:00:07"], {}, "no port with the address 02:00:00:00:00:07"),
        ([MAC], {MAC: "gone"}, "no port 'gone'"),
        ([MAC], {MAC: "up"}, "its type is 'router'"),
    ):
        with pytest.raises(RefusedError, match=words):
            plan.find(ports, macs, configured)
    with pytest.raises(RefusedError, match="several ports: twin, vm; choose one"):
        plan.find([*ports, replace(PORT, name="twin")], [MAC], {})


def test_chassis_that_are_not_there() -> None:
    plan.check_known({"a": 1, "b": 1, "c": 1}, ["a", "b", "c"])
    with pytest.raises(RefusedError, match="OVN has no chassis 'host1'; it has a, b: name the hosts'"):
        plan.check_known(["b", "a"], ["a", "host1"])
    with pytest.raises(RefusedError, match="no chassis 'a'; it has none"):
        plan.check_known([], ENDS)
    with pytest.raises(RefusedError, match="both hosts are chassis a"):
        plan.check_known(["a"], ["a", "a"])


def test_what_is_missing() -> None:
    both = {"vm": Place("a", frozenset("b"))}
    assert plan.not_on_both(both, {"vm": "a"}, "b") == ""
    assert plan.not_on_both(both, {"vm": "b"}, "a") == "port vm did not stay on chassis b"
    assert plan.not_on_both({"vm": AT_A}, {"vm": "a"}, "b") == "port vm was not taken by chassis b as well"
    assert plan.not_on_both({}, {"vm": "a"}, "b") == "port vm did not stay on chassis a"
    assert plan.changing_places({"vm": Place("b", frozenset("a"))}, {"vm": "a"}, "b") == ""
    assert plan.changing_places(both, {"vm": "a"}, "b") == "port vm did not stay on chassis b"
    assert plan.not_at(both, ["vm"], "a") == ""
    assert plan.not_at(both, ["vm"], "b") == "port vm was not taken by chassis b"
    assert plan.not_left(both, ["vm"]) == "port vm was not left by chassis b"
    assert plan.not_left({"vm": AT_A}, ["vm"]) == ""
    assert (
        plan.unconfirmed({"a": 7, "b": 6}, 7, ["a", "b", "c"])
        == "chassis b, c did not confirm configuration 7"
    )
    assert plan.unconfirmed({"a": 7, "b": 8}, 7, ENDS) == ""


def test_which_lead_elsewhere() -> None:
    ready = prepare()
    assert plan.leaders([ready], {"vm": AT_A}, "b") == {"vm": "a"}
    assert plan.leaders([ready], {"vm": AT_A}, "a") == {}
    assert plan.leaders([ready], {}, "b") == {}
    assert plan.leaders([PORT], {"vm": AT_A}, "b") == {}


def test_it_is_found_by_its_name() -> None:
    """In pyproject.toml: what is installed may be older than what is tested."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    entry = EntryPoint("ovn", project["entry-points"][GROUP]["ovn"], GROUP)
    assert entry.load()({"limit_s": 3})
