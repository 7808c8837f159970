"""Topology campus: nothing passes that no flow forwards, migrations do not need the fabric, clients walk between the buildings."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmnet.lab import Lab, lab_up, status
from vmnet.lab.move import move
from vmnet.lab.ovs import set_controllers
from vmnet.lab.wait import wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("libvirtd", "ovs-vswitchd"))),
        reason="needs root, libvirtd and openvswitch",
    ),
]
NAME = "labcampus"
ROOT = Path(__file__).parents[2]
VM = "10.1.0.10"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_up("campus", NAME) as made:
        yield made


def pings(lab: Lab, client: str, address: str = VM) -> bool:
    return lab.node(client).run(["busybox", "ping", "-c1", "-W1", address], check=False).returncode == 0


def pave(lab: Lab, *hops: tuple[str, str, str]) -> None:
    """Flows both ways between two ports of each of these switches; its other flows go."""
    for switch, one, other in hops:
        flows = f"in_port={one},actions=output:{other}\nin_port={other},actions=output:{one}\n"
        lab.node(switch).run(["ovs-ofctl", "del-flows", "switch"])
        lab.node(switch).run(["ovs-ofctl", "add-flows", "switch", "-"], text=flows)


def test_without_a_controller_nothing_passes_and_nothing_loops(lab: Lab) -> None:
    assert status.report(lab)["state"] == "up"
    assert not pings(lab, "c1", "10.1.0.102"), "not even on one switch"
    asked = ["ovs-ofctl", "-O", "OpenFlow13", "dump-flows", "tcp:10.0.0.13:6653"]
    assert "actions" not in lab.node("controller").run(asked).stdout
    for host in lab.hosts:
        for other in lab.hosts:
            host.run(["busybox", "ping", "-c1", "-W2", other.address])


def test_a_switch_finds_the_controller_it_is_given(lab: Lab) -> None:
    with lab.node("controller").call(lambda: socket.create_server(("10.0.0.100", 6653))) as server:
        server.settimeout(10)
        set_controllers(lab.node("s1"), "switch", ["ptcp:6653", "tcp:10.0.0.100:6653"])
        connection, (address, _) = server.accept()
        with connection:
            assert (address, connection.recv(8)[1]) == ("10.0.0.11", 0), "OFPT_HELLO"
    set_controllers(lab.node("s1"), "switch", ["ptcp:6653"])


def test_a_player_notices_its_move_and_plays_on(lab: Lab) -> None:
    number = lab.node("s2").spec.bridges[0].numbers
    both = f"{number['room1']},{number['room3']}"
    flows = [f"in_port={number[room]},actions=output:{number['h1']}" for room in ("room1", "room3")]
    pave(lab, ("s2", "room1", "h1"))
    add = [*flows, f"in_port={number['h1']},actions=output:{both}"]
    lab.node("s2").run(["ovs-ofctl", "add-flows", "switch", "-"], text="\n".join(add) + "\n")
    argv = [sys.executable, "-u", "-m", "vmnet.game", "play", VM, "--duration", "4", "--limit", "0.08"]
    with lab.node("c1").popen(argv, cwd=str(ROOT), stdout=subprocess.PIPE, text=True) as player:
        reports = (json.loads(line) for line in player.stdout)
        assert next(report["event"] for report in reports) == "joined"
        done = move(NAME, "c1", "s2:room3")
        rest = list(reports)
    assert player.returncode == 0
    events = [report["event"] for report in rest if report["event"] != "second"]
    assert events[:2] == ["disconnected", "reconnected"]
    summary = rest[-1]
    print(f"no link for {done.away_ms:g} ms;", summary)
    assert summary["longest_gap_ms"] < 1000
    assert summary["states"] > 20
    move(NAME, "c1", "s2:room1")


def test_vm_and_client_move_and_the_flows_say_how_they_meet(lab: Lab) -> None:
    pave(lab, ("s2", "room1", "h1"))
    wait_for("c1 to reach the VM on its own switch", lambda: pings(lab, "c1"), 10)
    move(NAME, "c1", "s5:room3")
    pave(lab, ("s5", "room3", "s4"), ("s4", "s5", "s1"), ("s1", "s4", "s2"), ("s2", "s1", "h1"))
    wait_for("c1 to reach it from the other building", lambda: pings(lab, "c1"), 10)
    h3 = lab.host("h3")
    lab.host("h1").run(
        ["virsh", "migrate", "--live", "vm1", h3.libvirt_uri, f"tcp://{h3.address}"], timeout=60
    )
    assert [(r.vm, r.host) for r in lab.running_vms()] == [("vm1", "h3")]
    assert not pings(lab, "c1"), "the flows still lead to h1"
    pave(lab, ("s5", "room3", "h3"))
    wait_for("c1 to reach it on one switch again", lambda: pings(lab, "c1"), 10)
    assert Lab.load(NAME).state.places == {"c1:eth0": "s5:room3"}
