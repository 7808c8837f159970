"""``vmnet bench pisa --schemes openflow``: a tiny run over real switches."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller_bridge.openflow.flow import Change, Command, Flow
from controller_bridge.openflow.match import Match
from controller_bridge.switch import Switch
from vmnet.bench.pisa import Bench
from vmnet.bench.pisa_openflow import FlowStand, fabric_of
from vmnet.bench.pisa_rows import Case, Step
from vmnet.bench.reroute_stage import management_socket
from vmnet.cli.bench_pisa import pisa
from vmnet.lab import Lab, lab_up
from vmnet.lab.wait import wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
CASE = Case("openflow", 200, 64)


def bench(file: Path, *more: str) -> str:
    words = ["--schemes", "openflow", "--rates", "200", "--sizes", "64", "--lab-name", "labpisabench"]
    done = CliRunner().invoke(pisa, ["--json", str(file), *words, *more])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_a_bench_of_flows_goes_there_and_back_and_is_resumed(tmp_path: Path) -> None:
    file = tmp_path / "pisa.json"
    said = bench(file, "--runs", "2")
    found = json.loads(file.read_text())
    control, *moved = found["rows"]
    assert [(row["control"], row["source"], row.get("error")) for row in found["rows"]] == [
        (True, "s2", None), (False, "s2", None), (False, "s3", None),
    ]  # fmt: skip
    for row in found["rows"]:
        assert row["sent"] > 200 and row["back_sent"] > 200
        assert [row[f"{way}{what}"] for way in ("", "back_") for what in ("lost", "duplicated")] == [0] * 4
    for row in moved:
        assert row["flows"] == 2
        assert 0 < row["prepared_ms"] < row["cut_ms"] < row["total_ms"] < row["gone_ms"]
        assert row["downtime_ms"] >= 0
    assert "total_ms" in control and control["total_ms"] is None
    assert Counter(entry["control"] for entry in found["summary"]) == {True: 1, False: 1}
    assert "openflow control" in said
    assert "[1/1] openflow 200/s 64 B run 2" in bench(file, "--runs", "3", "--resume")
    again = json.loads(file.read_text())
    assert again["rows"][:3] == found["rows"] and len(again["rows"]) == 4
    assert again["machine"] == found["machine"]


def test_ipv6() -> None:
    with lab_up("pisa-openflow", "labpisav6") as lab:
        row = Bench({"openflow": FlowStand(lab)}).step(Step(Case("openflow", 200, 70, 6), 0, False))
        assert (row.error, row.lost, row.back_lost, row.flows) == ("", 0, 0, 2)


async def _forget(lab: Lab, name: str) -> None:
    """A switch has no flow any more."""
    switch = await Switch.connect(fabric_of(lab).switches[name])
    await switch.commit([Change(Command.DELETE, Flow(0, Match(), b"", 0, 0xFF), 0)])
    switch.close()


def _refuses(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


def test_what_a_run_left_behind_is_put_back_and_a_dead_switch_is_said() -> None:
    with lab_up("pisa-openflow", "labpisaput") as lab:
        stand = FlowStand(lab)
        runs = Bench({"openflow": stand})
        asyncio.run(_forget(lab, "s2"))
        row = runs.step(Step(CASE, 0, False))
        assert (row.error, row.lost, stand.source()) == ("", 0, "s3")
        service = lab.node("s2").service("vswitchd")
        assert service is not None
        os.kill(service.pid, signal.SIGKILL)
        wait_for("the switch's socket to close", lambda: _refuses(management_socket(lab, "s2")), 10)
        row = runs.step(Step(CASE, 1, False))
        assert (row.error[:23], row.sent) == ("s2: no switch at unix:/", None), row.error
