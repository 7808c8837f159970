"""Topology campus with its controller (Erickson 2008): the VM moves between buildings and subnets, and the fabric leads to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import campus_kit
import kit
import pytest

from vmnet.lab import Lab, lab_up

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("libvirtd", "ovs-vswitchd"))),
        reason="needs root, libvirtd and openvswitch",
    ),
]
NAME = "labcampus2"
WEST, EAST = "h1", "h3"


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
