"""Topology campus without its controller: nothing passes that no flow forwards, migrations need no fabric, clients walk about."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kit
import pytest
import yaml

from vmnet.lab import Lab, lab_up, schema, status
from vmnet.lab.move import move
from vmnet.lab.ovs import set_controllers
from vmnet.lab.wait import wait_for

pytestmark = kit.OVS_LAB
NAME = "labcampus"
ROOT = Path(__file__).parents[2]
VM = "10.1.0.10"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Nobody tells its switches anything, and they look for nobody; the hosts' daemons run."""
    document = schema.load_document(schema.find("campus")[1])
    del document["clients"]["controller"]["controller"]
    for switch in document["switches"].values():
        switch.get("openflow", {}).pop("controller", None)
    file = tmp_path_factory.mktemp("campus") / "campus.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    with lab_up(str(file), NAME) as made:
        yield made


SWITCHES = """
clients: {ctl: {addresses: {eth0: [10.9.0.100/24]}}}
switches:
  s1: {kind: ovs, addresses: {mgmt: [10.9.0.1/24]}, openflow: {listen: 6653, controller: "tcp:10.9.0.100:6653"}}
  s2: {kind: ovs, openflow: {}}
  s3: {kind: ovs}
links:
  - {ends: ["s1:mgmt", "ctl:eth0"]}
  - {ends: ["s1:s2", "s2:s1"]}
"""


def test_switches_know_whom_they_obey(tmp_path: Path) -> None:
    (tmp_path / "switches.yaml").write_text(SWITCHES)
    with lab_up(str(tmp_path / "switches.yaml"), "labswitches") as made:

        def said(switch: str, *words: str) -> list[str]:
            return sorted(made.node(switch).run(["ovs-vsctl", "--timeout=10", *words]).stdout.split())

        wanted = {"s1": ["ptcp:6653", "tcp:10.9.0.100:6653"], "s2": [], "s3": []}
        assert {switch: said(switch, "get-controller", "switch") for switch in wanted} == wanted
        modes = {switch: said(switch, "get-fail-mode", "switch") for switch in wanted}
        assert modes == {"s1": ["secure"], "s2": ["secure"], "s3": []}
        assert said("s1", "list-ports", "switch") == ["s2"]


def pings(lab: Lab, client: str, address: str = VM) -> bool:
    return lab.node(client).run(["busybox", "ping", "-c1", "-W1", address], check=False).returncode == 0


def pave(lab: Lab, *hops: tuple[str, str, str]) -> None:
    """Flows both ways between two ports of each of these switches; its other flows go."""
    for switch, one, other in hops:
        lead(lab, switch, {one: [other], other: [one]})


def lead(lab: Lab, switch: str, ways: dict[str, list[str]]) -> None:
    """What comes in at a port goes out at these, and there are no other flows. By number: a port may not be there yet."""
    number = lab.node(switch).spec.bridges[0].numbers
    flows = [
        f"in_port={number[port]},actions=output:{','.join(str(number[out]) for out in outs)}"
        for port, outs in ways.items()
    ]
    lab.node(switch).run(["ovs-ofctl", "del-flows", "switch"])
    lab.node(switch).run(["ovs-ofctl", "add-flows", "switch", "-"], text="\n".join(flows) + "\n")


def play_while(lab: Lab, seconds: int, limit_s: float, act: Callable[[], object]) -> list[dict[str, Any]]:
    """What c1 reports that plays against the VM; it has joined before ``act`` is called. Without the reports of each second."""
    options = ["--duration", str(seconds), "--limit", str(limit_s)]
    argv = [sys.executable, "-u", "-m", "vmnet.game", "play", VM, *options]
    with lab.node("c1").popen(argv, cwd=str(ROOT), stdout=subprocess.PIPE, text=True) as player:
        reports = (json.loads(line) for line in player.stdout)
        first = next(reports)
        act()
        rest = list(reports)
    assert player.returncode == 0
    assert first["event"] == "joined"
    print(rest[-1])
    return [report for report in rest if report["event"] != "second"]


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
    lead(lab, "s2", {"room1": ["h1"], "room3": ["h1"], "h1": ["room1", "room3"]})
    reports = play_while(lab, 4, 0.08, lambda: move(NAME, "c1", "s2:room3"))
    assert [report["event"] for report in reports[:2]] == ["disconnected", "reconnected"]
    assert reports[-1]["longest_gap_ms"] < 1000
    assert reports[-1]["states"] > 20
    move(NAME, "c1", "s2:room1")


def test_a_player_plays_on_while_the_vm_migrates(lab: Lab) -> None:
    lead(lab, "s2", {"room1": ["h1", "s3"], "h1": ["room1", "s3"], "s3": ["room1", "h1"]})
    pave(lab, ("s3", "s2", "h2"))
    reports = play_while(lab, 6, 2.0, lambda: kit.vmnet(lab.host("h1"), "migrate", "vm1", "h2"))
    assert [(r.vm, r.host) for r in lab.running_vms()] == [("vm1", "h2")]
    assert [report["event"] for report in reports] == ["summary"], "nobody was disconnected"
    assert reports[-1]["states"] > 60
    assert kit.vmnet(lab.host("h2"), "migrate", "vm1", "h1").returncode == 0


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
