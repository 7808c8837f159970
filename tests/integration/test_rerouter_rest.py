"""A VM moves in a fabric whose flows are given to a real Ryu (ofctl_rest): where its packets come out meanwhile."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from dataplane_kit import Traffic, frame, isolated, until
from faucet_kit import Ear
from ovs_kit import lost_at_most
from pypi_kit import RYU, NotThereError, venv
from ryu_kit import BACK, MAC, MOVE, RyuFabric

from controller_bridge.rerouters.base import Move
from vmnet.errors import RefusedError, UnavailableError, VmnetError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
RATE = 2000
BUSY = 10
"""Packets that a busy machine may cost; the move itself costs none."""


@pytest.fixture(scope="module")
def programs() -> Path:
    try:
        return venv(RYU)
    except NotThereError as error:
        pytest.skip(f"no Ryu: {error}")


def ears(kit: RyuFabric) -> dict[str, Ear]:
    return {name: Ear(kit.fabric.ends[f"host-{name}"]) for name in ("a", "b")}


@pytest.mark.parametrize("protocols", ["OpenFlow13", "OpenFlow13,OpenFlow14"])
@isolated(270)
def test_a_move_there_and_back(programs: Path, protocols: str) -> None:
    kit = RyuFabric(programs, protocols)
    heard, at_a = ears(kit), kit.tables()

    def there_and_back() -> list[int]:
        lost = [moved(kit, heard, move) for move in (MOVE, BACK)]
        assert kit.tables() == at_a, "the switches' own entries only, and as they were"
        return lost

    lost_at_most(BUSY, there_and_back)


def moved(kit: RyuFabric, heard: dict[str, Ear], move: Move) -> int:
    """How many packets are lost, more than in a control run."""
    began = time.monotonic()
    traffic = Traffic(kit.senders["client"].send, RATE)
    kit.do("prepare", move=move)
    time.sleep(0.5)
    before = heard[move.source].heard()
    assert before and not heard[move.destination].heard(), "prepared: nothing takes the new way"
    kit.do("cut_over", "finish", move=move)
    sent = traffic.stop()
    lasted_s = time.monotonic() - began
    time.sleep(0.3)
    old, new = before + heard[move.source].heard(), heard[move.destination].heard()
    lost = sent - len({*old, *new})
    alone = control_run(kit, heard[move.destination], lasted_s)
    print(f"{sent} packets in {lasted_s:.1f} s: {lost} lost, {alone} in a control run")
    assert len(old) + len(new) == len({*old, *new}), "none twice"
    assert max(old) < min(new), "one way, then the other"
    return lost - alone


def control_run(kit: RyuFabric, ear: Ear, during_s: float) -> int:
    """How many packets are lost in the same time when nothing moves: Open vSwitch in user space loses some by itself."""
    traffic = Traffic(kit.senders["client"].send, RATE)
    time.sleep(during_s)
    sent = traffic.stop()
    time.sleep(0.3)
    return sent - len(set(ear.heard()))


@isolated(60)
def test_packets_are_sent_right_wherever_they_come_from(programs: Path) -> None:
    kit = RyuFabric(programs)
    heard, neighbour = ears(kit), {"a": "host-b", "b": "host-a"}
    for number, (step, end) in enumerate({"prepare": "a", "cut_over": "b", "roll_back": "a"}.items()):
        kit.do(step, step)
        for one in ("client", neighbour[end]) if step != "cut_over" else ("client",):
            kit.senders[one].send(frame(number))
            until(lambda: heard[end].heard() == [number], 5, f"{step}: from {one} to {end}")  # noqa: B023


@isolated(60)
def test_roll_back_puts_everything_back_by_a_new_process_and_twice(programs: Path) -> None:
    kit = RyuFabric(programs)
    before = kit.tables()
    for steps in (["prepare"], ["prepare", "cut_over"], ["prepare", "cut_over", "cut_over", "prepare"]):
        kit.do(*steps)
        assert kit.tables() != before
        kit.do("roll_back", "roll_back")
        assert kit.tables() == before
    kit.do("prepare", "cut_over", "finish")
    moved = kit.tables()
    kit.do("finish")
    assert kit.tables() == moved


@isolated(60)
def test_a_fabric_without_entries_for_the_vm_keeps_ours(programs: Path) -> None:
    kit = RyuFabric(programs)
    for ovs in kit.fabric.switches.values():
        ovs.ofctl("del-flows")
    heard = ears(kit)
    kit.do("prepare", "cut_over", "finish", "finish")
    kit.senders["client"].send(frame(1))
    until(lambda: heard["b"].heard() == [1], 5, "by what is left of the move")
    kit.do("prepare", "cut_over", "finish", move=BACK)
    kit.senders["client"].send(frame(2))
    until(lambda: heard["a"].heard() == [2], 5, "and back")
    kept = kit.tables()
    kit.do("prepare", "cut_over", "roll_back", move=Move("m3", "blue", "a", "b", (MAC,)))
    assert kit.tables() == kept
    assert [len(one) for one in kit.tables().values()] == [1, 1, 1]


def fails(kit: RyuFabric, kind: type[VmnetError], says: str, step: str = "prepare", **more: Any) -> None:
    """It does, with one line, and the switches are as they were."""
    before = kit.tables()
    with pytest.raises(kind, match=says) as caught:
        kit.do(step, **more)
    assert "\n" not in str(caught.value)
    assert kit.tables() == before


@isolated(90)
def test_what_cannot_be_changes_nothing(programs: Path) -> None:
    kit = RyuFabric(programs)
    fails(kit, RefusedError, "has not been prepared on switch 1", "cut_over")
    fails(kit, VmnetError, "no ways to host 'c'", move=Move("m1", "blue", "a", "c", MOVE.macs))
    fails(kit, UnavailableError, "Connection refused", url="http://127.0.0.1:9")
    fails(kit, UnavailableError, r"has no switch 9; it has 1, 2, 3", hosts={"a": {"9": 1}, "b": {"9": 2}})
    fails(kit, RefusedError, "switch 1: an entry for blue sends to port 1, not to 2, where b is", move=BACK)
    fails(kit, RefusedError, "has priority 100; give a `priority` above it; it is 50", priority=50)
    kit.entry(
        2,
        1,
        match={"eth_dst": MAC, "vlan_vid": 100},
        actions=[{"type": "POP_VLAN"}, {"type": "OUTPUT", "port": 1}],
    )
    fails(kit, RefusedError, "switch 2: an entry for blue does more than send to a port")


@isolated(90)
def test_ryu_dies_and_comes_back(programs: Path) -> None:
    kit = RyuFabric(programs)
    kit.do("prepare")
    kit.kill()
    fails(kit, UnavailableError, "cannot reach", "cut_over")
    kit.start()
    kit.connected()
    kit.do("cut_over", "finish")
