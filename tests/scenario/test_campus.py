"""Topology campus with its controller (Erickson 2008): the VM moves between buildings and subnets, and the fabric leads to it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median
from typing import Any

import campus_kit
import campus_lies
import kit
import pytest

from vmnet.bench.child import PIPES, Child
from vmnet.demo.players import LIMIT_S, between, playing, rtts_ms
from vmnet.lab import Lab, lab_up
from vmnet.lab.move import move

pytestmark = kit.OVS_LAB
NAME = "labcampus2"
WEST, EAST = "h1", "h3"
CLIENTS = ("c1", "c2", "c3")
SECONDS = 10
"""Of play before the VM moves, and after."""
STANDS_STILL_MS = 1000 * LIMIT_S / 2
"""A VM that stands still for longer, on a machine that gives it no processor, may be missed by its players for ``LIMIT_S``."""
WARM_SECONDS = 5
"""An emulated guest is slow at first on its new host."""
LIMITS = ("--cpu-most", "1000", "--pause", "1")
"""This machine's processors are all the hosts', and busy; the tests before have moved the VM."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_up("campus", NAME) as made:
        campus_kit.known(made)
        yield made


@pytest.fixture(scope="module")
def control(lab: Lab) -> dict[str, int]:
    """What the same traffic suffers while nothing moves."""
    with campus_kit.traffic(lab) as results:
        pass
    found = campus_kit.sums(results)
    assert campus_kit.streams_whole(results), results
    assert (found["lost"], found["duplicated"]) == (0, 0), results
    return found


def test_everybody_reaches_everybody_by_a_shortest_way(lab: Lab) -> None:
    campus_kit.bring_to(lab, WEST)
    campus_kit.led(lab)
    least = campus_kit.fewest(lab)
    assert (least["c1"][WEST], least["c3"][WEST], least["c3"][EAST]) == (2, 5, 2), "what is compared with"


def test_to_the_other_building_and_subnet_with_vmnet_migrate(lab: Lab, control: dict[str, int]) -> None:
    campus_kit.bring_to(lab, WEST)
    with campus_kit.traffic(lab) as results:
        verdict = campus_kit.migrate(lab, EAST)
        assert kit.where(lab).name == EAST
    assert (verdict["rerouted"], verdict["ordered"], verdict["lost"]) == (True, True, 0), verdict
    found = campus_kit.sums(results)
    assert (found["lost"], found["duplicated"]) == (0, 0), results
    assert found["reordered"] <= control["reordered"], results
    assert campus_kit.streams_whole(results), results
    kit.settled(lab)
    campus_kit.led(lab)


def test_back_with_virsh_migrate_and_hooks(lab: Lab, control: dict[str, int]) -> None:
    """QEMU decides when the VM stops: up to two packets an interface may come twice (README, Limits)."""
    campus_kit.bring_to(lab, EAST)
    with campus_kit.traffic(lab) as results:
        campus_kit.virsh_migrate(lab, WEST)
        assert kit.where(lab).name == WEST
    found = campus_kit.sums(results)
    assert found["lost"] == 0 and found["duplicated"] <= 2, results
    assert found["reordered"] <= control["reordered"], results
    assert campus_kit.streams_whole(results), results
    kit.settled(lab)
    campus_kit.led(lab)


# -- what is not so ------------------------------------------------------------------------------------------------------


def test_forged_arp_and_lldp_change_no_table_while_the_vm_is_bound(lab: Lab) -> None:
    campus_kit.bring_to(lab, WEST)
    campus_kit.led(lab)
    vm = next(one for one in campus_lies.status(lab)["stations"] if one["mac"] == "52:54:00:00:00:01")
    assert (vm["bound"], vm["place"], vm["partner"]) == (True, "s2:h1", None), vm
    before = campus_kit.entries(lab)
    with campus_kit.traffic(lab) as results:
        campus_lies.told(lab, WEST, "up1", campus_lies.of_vm(lab))
        campus_lies.told(lab, "c2", "eth0", campus_lies.of_client(lab))
        campus_lies.told(lab, "c3", "eth0", campus_lies.of_client(lab))
        campus_lies.say(lab, WEST, "up1", [campus_lies.theft(lab)])
    assert campus_kit.entries(lab) == before, "neither at once nor some seconds later"
    found = campus_kit.sums(results)
    assert (found["lost"], found["duplicated"]) == (0, 0), results
    assert campus_kit.streams_whole(results), results
    assert campus_kit.pings(lab, "c2", campus_kit.V4)


# -- the VM follows ------------------------------------------------------------------------------------------------------


def connected(summaries: dict[str, dict[str, Any]], verdict: dict[str, Any]) -> None:
    """Nobody is disconnected, or each at most once and because the VM itself stood still."""
    found = {name: one["disconnects"] for name, one in summaries.items()}
    most = int(verdict["compute_downtime_ms"] > STANDS_STILL_MS)
    assert max(found.values()) <= most, (found, verdict)


def test_the_vm_follows_its_players_to_the_other_building(lab: Lab) -> None:
    """As many hops as the tables say; the player that nobody moved sees nothing of the VM's move but its distance."""
    campus_kit.bring_to(lab, WEST)
    move(NAME, "c1", "s2:room1")
    campus_kit.led(lab)
    with playing(lab, CLIENTS, campus_kit.V4) as players:
        players.play(3)
        move(NAME, "c1", "s5:room3")
        players.play(SECONDS)
        hops, away_s = campus_kit.hops(lab), time.time()
        assert hops == {"c1": 5, "c2": 2, "c3": 5}
        done = kit.vmnet(lab.host(WEST), "follow", kit.VM, "--once", "--json", *LIMITS)
        assert done.returncode == 0, done.stdout + done.stderr
        look, *_, last = map(json.loads, done.stdout.splitlines())
        assert (look["verdict"], look["to"]) == ("move", EAST), look
        assert look["gain"] == pytest.approx(1.0, abs=0.2), look
        assert last["verdict"]["clean"] and last["verdict"]["rerouted"], last
        players.play(WARM_SECONDS)
        moved_s = time.time()
        players.play(SECONDS)
        reports, summaries = players.reports(), players.end()
    assert kit.where(lab).name == EAST
    assert campus_kit.hops(lab) == {"c1": 2, "c2": 5, "c3": 2}
    connected(summaries, last["verdict"])
    for client in ("c1", "c3"):
        before = rtts_ms(between(reports[client], away_s - SECONDS, away_s))
        after = rtts_ms(between(reports[client], moved_s, math.inf))
        assert median(after) < median(before), (client, before, after)
    kit.settled(lab)
    campus_kit.led(lab)


def test_watched_on_both_hosts_it_follows_back(lab: Lab) -> None:
    """No host is told where the VM is, or when to look."""
    campus_kit.bring_to(lab, EAST)
    words = ("follow", kit.VM, "--watch", "--every", "1", "--json", *LIMITS)
    with ExitStack() as stack, playing(lab, CLIENTS, campus_kit.V4) as players:
        move(NAME, "c1", "s2:room1")
        players.play(3)
        watches = {
            name: stack.enter_context(
                Child(f"vmnet follow on {name}", lab.host(name).popen([*kit.VMNET, *words], **PIPES))
            )
            for name in (WEST, EAST)
        }
        moved = watches[EAST].expect("move", lambda line: line.get("verdict") == "move", 60)
        assert moved["to"] == WEST, moved
        stays = watches[WEST].expect("look", lambda line: line.get("verdict") in ("stay", "wait"), 60)
        assert stays["host"] == WEST, stays
        away = watches[EAST].expect("news", lambda line: line.get("event") == "away", 60)
        assert away["host"] == WEST, away
        summaries = players.end()
    assert kit.where(lab).name == WEST
    connected(summaries, kit.last_verdict(lab.host(EAST)))
    kit.settled(lab)
    campus_kit.led(lab)
    assert campus_kit.hops(lab) == {"c1": 2, "c2": 2, "c3": 5}
