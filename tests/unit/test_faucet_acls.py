"""Faucet's files: what they say, what ours says; and that no order in which switches are told loses a packet under way."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from controller_bridge.rerouters import faucet_acls, faucet_config, faucet_file
from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.faucet_acls import Entry, Stage
from controller_bridge.rerouters.faucet_config import Fabric, Interface
from vmnet.errors import ConfigError, RefusedError

OURS = Path("/etc/faucet/vmnet.yaml")
MAC = "52:54:00:00:00:01"
MOVE = Move("m1", "blue", "a", "b", (MAC.upper(),))

# a's switch s1 - s2 - s3 b's switch; every switch has a client of its own.
LINKS = {("s1", 1): ("s2", 1), ("s2", 1): ("s1", 1), ("s2", 2): ("s3", 1), ("s3", 1): ("s2", 2)}
ENDS = {("s1", 2): "a", ("s1", 3): "c1", ("s2", 3): "c2", ("s3", 2): "b", ("s3", 3): "c3"}
HOSTS = {"a": {"s1": "2", "s2": "1", "s3": "1"}, "b": {"s1": "1", "s2": "2", "s3": "2"}}
Tables = dict[str, frozenset[Entry]]


def line() -> Fabric:
    datapaths: dict[str, dict[int, Interface]] = {}
    for datapath, number in (*LINKS, *ENDS):
        trunk = (datapath, number) in LINKS
        datapaths.setdefault(datapath, {})[number] = Interface(
            number,
            f"p{number}",
            None if trunk else 100,
            frozenset([100] if trunk else []),
            acls=(faucet_acls.acl_name(datapath, number), "allowed"),
        )
    return Fabric(datapaths, {"office": 100})


FABRIC = line()
WAYS = faucet_acls.turns(MOVE, HOSTS, FABRIC)


def tables(stage: Stage) -> Tables:
    entries = faucet_acls.wanted(stage, MOVE, WAYS, FABRIC)
    return {name: frozenset(one for one in entries if one.datapath == name) for name in FABRIC.datapaths}


def orders(begin: Stage, end: Stage) -> Iterable[list[Tables]]:
    """The fabric before, between and after its switches are told, in every order."""
    for order in itertools.permutations(FABRIC.datapaths):
        states = [tables(begin)]
        for name in order:
            states.append(states[-1] | {name: tables(end)[name]})
        yield states


def arrivals(states: list[Tables], learned: str) -> set[str]:
    """Wherever a packet for the VM can come out that any client sends, when Faucet has learned it to be at ``learned``.

    A switch may be told while the packet is on a link. "dropped" where it would go back by where it came from.
    """
    found, seen = set(), set()
    todo = [(place, 0) for place, end in ENDS.items() if end.startswith("c")]
    while todo:
        (datapath, number), at = todo.pop()
        if ((datapath, number), at) in seen:
            continue
        seen.add(((datapath, number), at))
        for later in range(at, len(states)):
            told = [one.out_port for one in states[later][datapath] if one.in_port == number]
            out = told[0] if told else int(HOSTS[learned][datapath])
            if out == number:
                found.add("dropped")
            elif (datapath, out) in LINKS:
                todo.append((LINKS[datapath, out], later))
            else:
                found.add(ENDS[datapath, out])
    return found


def test_in_whatever_order_switches_are_told() -> None:
    for states in orders(Stage.NONE, Stage.PREPARED):
        assert arrivals(states, "a") == {"a"}
    for states in orders(Stage.PREPARED, Stage.CUT):
        assert arrivals(states, "a") == {"a", "b"}
    for states in orders(Stage.CUT, Stage.NONE):
        assert arrivals(states, "b") == {"b"}


def test_back_is_two_steps_for_the_same_reason() -> None:
    for states in orders(Stage.CUT, Stage.PREPARED):
        assert arrivals(states, "a") == {"a", "b"}
    for states in orders(Stage.PREPARED, Stage.NONE):
        assert arrivals(states, "a") == {"a"}


def test_without_having_been_prepared_packets_would_be_lost() -> None:
    assert any("dropped" in arrivals(states, "a") for states in orders(Stage.NONE, Stage.CUT))


def test_after_the_cut_what_faucet_learns_changes_nothing() -> None:
    for learned in "ab":
        assert arrivals([tables(Stage.CUT)], learned) == {"b"}


def test_the_file_says_it_all_and_the_same_bytes_each_time() -> None:
    cut = faucet_acls.staged((), Stage.CUT, MOVE, WAYS, FABRIC)
    text = faucet_file.written(cut, FABRIC, 100)
    assert text == faucet_file.written(sorted(cut, reverse=True), FABRIC, 100)
    read = set(faucet_file.entries_in(faucet_config.parse(text, OURS)["acls"]))
    assert read == cut
    assert faucet_acls.at_stage(read, Stage.CUT, MOVE, WAYS, FABRIC)
    assert not faucet_acls.at_stage(read, Stage.PREPARED, MOVE, WAYS, FABRIC)
    idle = faucet_file.written((), FABRIC, 100)
    assert faucet_file.written(faucet_acls.staged(read, Stage.NONE, MOVE, WAYS, FABRIC), FABRIC, 100) == idle
    assert not list(faucet_file.entries_in(faucet_config.parse(idle, OURS)["acls"]))


def test_tags_are_put_on_and_taken_off() -> None:
    rules = faucet_file.written(
        faucet_acls.staged((), Stage.CUT, MOVE, WAYS, FABRIC), FABRIC, 100
    ).splitlines()
    after = {
        name.strip(" :"): rule for name, rule in itertools.pairwise(rules) if name.startswith("  vmnet-")
    }
    assert after["vmnet-s1-3"].endswith(
        'dl_dst: "52:54:00:00:00:01", actions: {output: {vlan_vid: 100, port: 1}}}'
    )
    assert after["vmnet-s2-1"].endswith(
        'dl_dst: "52:54:00:00:00:01", vlan_vid: 100, actions: {output: {port: 2}}}'
    )
    assert after["vmnet-s3-1"].endswith("vlan_vid: 100, actions: {output: {pop_vlans: 1, port: 2}}}")
    with pytest.raises(ConfigError, match="carry tags: of which VLAN"):
        faucet_file.written(faucet_acls.staged((), Stage.CUT, MOVE, WAYS, FABRIC), FABRIC, None)


def test_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="host b: no interface given for s2"):
        faucet_acls.check_hosts({"a": {"s1": "1", "s2": "1"}, "b": {"s1": "1"}}, FABRIC)
    with pytest.raises(ConfigError, match=r"no datapath 's9'; it has s1, s2, s3"):
        faucet_acls.check_hosts({"a": {"s9": "1"}}, FABRIC)
    with pytest.raises(ConfigError, match=r"s1 has no interface 'p7'; it has p1, p2, p3"):
        faucet_acls.check_hosts({"a": {"s1": "p7"}}, FABRIC)
    with pytest.raises(RefusedError, match="is no MAC address"):
        faucet_acls.staged((), Stage.CUT, Move("m", "v", "a", "b", ("x",)), WAYS, FABRIC)
    with pytest.raises(RefusedError, match="is no migration's id"):
        faucet_acls.staged((), Stage.CUT, Move('m"', "v", "a", "b", (MAC,)), WAYS, FABRIC)
    with pytest.raises(ConfigError, match="not as vmnet writes it"):
        list(faucet_file.entries_in({"vmnet-s1-1": [{"rule": {"dl_dst": MAC, "actions": {"allow": "1"}}}]}))
    with pytest.raises(ConfigError, match=r"no interface has the ACL vmnet-s9-1"):
        faucet_file.written([Entry("s9", 1, MAC, 2, "m1")], FABRIC, 100)
