"""A VM moves in a fabric that a real Faucet runs by its own configuration: where its packets come out meanwhile."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from dataplane_kit import GUEST, Traffic, frame, isolated, until
from faucet_kit import BACK, CONFIG, MOVE, Ear, FaucetFabric
from ovs_kit import lost_at_most
from pypi_kit import FAUCET, NotThereError, venv

from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.faucet_check import Place
from controller_bridge.rerouters.faucet_control import FaucetControl
from vmnet.errors import RefusedError, UnavailableError, VmnetError, WaitTimeoutError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
RATE = 2000
REWRITTEN = 60
"""Packets (30 ms of them) that one reload of Faucet's may cost: it deletes an interface's ACL entries and adds them again."""


@pytest.fixture(scope="module")
def programs() -> Path:
    try:
        return venv(FAUCET)
    except NotThereError as error:
        pytest.skip(f"no Faucet: {error}")


def control_run(kit: FaucetFabric, ear: Ear, during_s: float) -> int:
    """How many packets are lost in the same time when nothing moves: Open vSwitch in user space loses some by itself."""
    traffic = Traffic(kit.senders["client"].send, RATE)
    time.sleep(during_s)
    sent = traffic.stop()
    return sent - len(set(heard(ear, sent)))


def heard(ear: Ear, sent: int) -> list[int]:
    """Until the last of the packets sent has had time to come."""
    time.sleep(0.3)
    return [one for one in ear.heard() if one < sent]


@isolated(270)
def test_a_move_there_and_back(programs: Path) -> None:
    kit = FaucetFabric(programs)
    ears = {name: Ear(kit.fabric.ends[f"host-{name}"]) for name in ("a", "b")}
    lost_at_most(3 * REWRITTEN, lambda: [moved(kit, ears, move) for move in (MOVE, BACK)])


def moved(kit: FaucetFabric, ears: dict[str, Ear], move: Move) -> int:
    """How many packets are lost, more than in a control run. Nothing of ours is left."""
    files, tables = (kit.config.read_bytes(), kit.file.read_bytes()), kit.tables()
    began = time.monotonic()
    traffic = Traffic(kit.senders["client"].send, RATE)
    kit.do("prepare", move=move)
    assert kit.file.read_bytes() != files[1]
    before = ears[move.source].heard()
    assert before and not ears[move.destination].heard(), "prepared: nothing takes the new way"
    kit.do("cut_over", move=move)
    kit.announce(f"host-{move.destination}")
    kit.do("finish", move=move)
    sent = traffic.stop()
    lasted_s = time.monotonic() - began
    old, new = before + heard(ears[move.source], sent), heard(ears[move.destination], sent)
    lost = sent - len({*old, *new})
    alone = control_run(kit, ears[move.destination], lasted_s)
    print(f"{sent} packets in {lasted_s:.1f} s: {lost} lost, {alone} in a control run")
    assert len(old) + len(new) == len({*old, *new}), "none twice"
    assert max(old) < min(new), "one way, then the other"
    assert (kit.config.read_bytes(), kit.file.read_bytes()) == files
    assert kit.tables() == tables
    assert set(kit.running().cold.values()) == {0}
    return lost - alone


@isolated(60)
def test_packets_are_sent_right_wherever_they_come_from(programs: Path) -> None:
    kit = FaucetFabric(programs)
    ears = {name: Ear(kit.fabric.ends[f"host-{name}"]) for name in ("a", "b")}
    where = {"prepare": "a", "cut_over": "b", "roll_back": "a"}
    for number, (step, end) in enumerate(where.items()):
        kit.do(step, step)
        sender = {"a": "host-b", "b": "host-a"}[end]  # a neighbour of where the VM is not
        for one in ("client", sender):
            kit.senders[one].send(frame(number))
        got: list[int] = []
        until(lambda: got.extend(ears[end].heard()) or len(got) >= 2, 5, f"{step}: both arrive at {end}")  # noqa: B023
        assert got == [number, number]


@isolated(60)
def test_roll_back_puts_everything_back_by_a_new_process_and_twice(programs: Path) -> None:
    kit = FaucetFabric(programs)
    before, tables = kit.file.read_bytes(), kit.tables()
    for steps in (
        ["prepare"],
        ["prepare", "prepare"],
        ["prepare", "cut_over"],
        ["prepare", "cut_over", "cut_over", "prepare"],
    ):
        kit.do(*steps)
        assert kit.file.read_bytes() != before
        kit.do("roll_back", "roll_back")
        assert kit.file.read_bytes() == before
        assert kit.tables() == tables
    kit.do("roll_back", "finish")
    assert kit.file.read_bytes() == before
    assert sorted(one.name for one in kit.folder.iterdir() if ".vmnet" in one.name) == []


@isolated(60)
def test_two_vms_at_once(programs: Path) -> None:
    kit = FaucetFabric(programs)
    other = Move("m9", "green", "b", "a", ("52:54:00:00:00:09",))
    idle = kit.file.read_bytes()
    kit.do("prepare", "cut_over")
    one = kit.file.read_bytes()
    kit.do("prepare", "cut_over", move=other)
    with pytest.raises(RefusedError, match=r"52:54:00:00:00:01 is being moved already, by m1"):
        kit.do("prepare", move=Move("m3", "blue", "a", "b", MOVE.macs))
    kit.do("roll_back", move=other)
    assert kit.file.read_bytes() == one
    kit.do("roll_back")
    assert kit.file.read_bytes() == idle


def fails(kit: FaucetFabric, kind: type[VmnetError], says: str, *steps: str, **more: Any) -> None:
    """It does, with one line, and Faucet, the files and the switches are as they were."""
    files, tables, reloads = (
        (kit.config.read_bytes(), kit.file.read_bytes()),
        kit.tables(),
        kit.running().reloads,
    )
    with pytest.raises(kind, match=says) as caught:
        kit.do(*(steps or ("prepare",)), **more)
    assert "\n" not in str(caught.value)
    assert (kit.config.read_bytes(), kit.file.read_bytes()) == files
    assert kit.tables() == tables
    assert kit.running().reloads == reloads


def reloaded(kit: FaucetFabric, text: str) -> None:
    """The operator's own change."""
    before = kit.running().reloads
    kit.config.write_text(text)
    kit.process.send_signal(1)
    until(lambda: kit.running().reloads > before, 10, "Faucet has loaded it")


@isolated(90)
def test_what_cannot_be_changes_nothing(programs: Path) -> None:
    kit = FaucetFabric(programs)
    fails(kit, RefusedError, "has not been prepared", "cut_over")
    fails(kit, VmnetError, "no ways to host 'c'", move=Move("m1", "blue", "a", "c", MOVE.macs))
    fails(kit, VmnetError, "no program /nowhere/check", check="/nowhere/check")
    fails(kit, UnavailableError, "Connection refused", metrics="http://127.0.0.1:9")


@isolated(60)
def test_a_way_that_cannot_be_confirmed_is_taken_back(programs: Path) -> None:
    kit = FaucetFabric(programs)
    before, tables = kit.file.read_bytes(), kit.tables()
    with pytest.raises(UnavailableError, match="no switch at unix:/nowhere"):
        kit.do("prepare", switches={"s1": "unix:/nowhere"})
    assert kit.file.read_bytes() == before
    assert kit.tables() == tables


@isolated(90)
def test_an_operators_broken_or_half_done_configuration(programs: Path) -> None:
    kit = FaucetFabric(programs)
    kit.config.write_text(CONFIG + "# not loaded yet\n")
    fails(kit, RefusedError, r"Faucet has not loaded .*faucet.yaml as it is now")
    kit.config.write_text(CONFIG.replace("dp_id: 0x3", "dp_id: 0x2"))
    fails(kit, RefusedError, "Faucet has not loaded")
    reloaded(kit, CONFIG.replace("acls_in: [vmnet-s1-3, allowed]", "acls_in: [allowed]"))
    fails(kit, RefusedError, r"s1, interface client: vmnet-s1-3 is not in acls_in")
    reloaded(kit, CONFIG)
    kit.do("prepare")
    kit.config.write_text(CONFIG.replace("dp_id: 0x3", "dp_id: 0x2"))
    fails(kit, RefusedError, r"check_faucet_config refuses the configuration: .*duplicated", "cut_over")
    kit.config.write_text(CONFIG)
    kit.do("cut_over", "roll_back")


@isolated(60)
def test_what_faucet_refuses_is_taken_back(programs: Path) -> None:
    """As if its checker had overlooked it."""
    kit = FaucetFabric(programs)
    before, tables = kit.file.read_bytes(), kit.tables()
    control = FaucetControl(
        Place(
            kit.config,
            kit.file,
            "http://127.0.0.1:9302",
            str(programs / "check_faucet_config"),
            kit.folder / "pid",
        )
    )
    broken = before.decode().replace("allow: 0", "allow: no, output: {port: 77}")
    with pytest.raises(RefusedError, match="check_faucet_config refuses"):
        kit.run(lambda: control.checker.check(broken))
    with pytest.raises(RefusedError, match="Faucet does not load its configuration"):
        kit.run(lambda: control.apply(broken, lambda now: None))
    assert kit.file.read_bytes() == before
    until(lambda: not kit.running().failed, 10, "Faucet is content again")
    assert kit.tables() == tables
    kit.do("prepare", "cut_over", "roll_back")


@isolated(60)
def test_the_old_way_stays_until_faucet_has_heard_the_vm_at_its_new_place(programs: Path) -> None:
    kit = FaucetFabric(programs)
    kit.do("prepare", "cut_over")
    cut = kit.file.read_bytes()
    with pytest.raises(WaitTimeoutError, match="Faucet has not heard blue at b within 1 s"):
        kit.do("finish", limit_s=1)
    assert kit.file.read_bytes() == cut
    kit.announce("host-b")
    kit.do("finish", "finish")
    ear = Ear(kit.fabric.ends["host-b"])
    kit.senders["client"].send(frame(1, to=GUEST))
    until(lambda: ear.heard() == [1], 5, "by what Faucet has learned itself")


@isolated(90)
def test_faucet_dies_and_comes_back(programs: Path) -> None:
    kit = FaucetFabric(programs)
    before = kit.file.read_bytes()
    kit.do("prepare")
    prepared = kit.file.read_bytes()
    kit.kill()
    with pytest.raises(UnavailableError, match=r"cannot reach http://127\.0\.0\.1:9302"):
        kit.do("cut_over")
    assert kit.file.read_bytes() == prepared
    kit.start()
    kit.connected()
    kit.do("cut_over")
    kit.kill()
    with pytest.raises(UnavailableError, match="cannot reach"):
        kit.do("roll_back")
    assert kit.file.read_bytes() == before, "it starts as it was"
    kit.start()
    kit.connected()
    kit.do("roll_back", "prepare", "cut_over")
    kit.announce("host-b")
    kit.do("finish")
    assert kit.file.read_bytes() == before


@isolated(90)
def test_by_faucets_own_looking_at_its_files(programs: Path) -> None:
    kit = FaucetFabric(programs, reread=True)
    before = kit.file.read_bytes()
    kit.do("prepare", "cut_over", limit_s=20)
    kit.announce("host-b")
    kit.do("finish", limit_s=20)
    assert kit.file.read_bytes() == before
