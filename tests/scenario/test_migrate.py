"""A VM moves between two real hosts under traffic, and the traffic does not notice."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import kit
import pytest

from vmnet.lab import Lab, lab_up

pytestmark = kit.LAB


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with lab_up("pair", "labmig") as lab:
        yield lab


def nothing_lost(result: dict[str, Any]) -> None:
    ways = [
        (way, result[way]["lost"], result[way]["reordered"], result[way]["missing"][:5])
        for way in ("out", "back")
    ]
    assert (result["lost"], result["reordered"]) == (0, 0), f"{ways} of {result}"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("rate", [100, 2000])
def test_managed_loses_duplicates_and_reorders_nothing(pair: Lab, rate: int, version: int) -> None:
    with kit.traffic(pair, kit.address(pair, version), rate) as result:
        verdict = kit.verdict(kit.migrate(pair))
    nothing_lost(result)
    assert result["duplicated"] <= verdict["possible_duplicates"]
    assert verdict["ordered"]
    assert verdict["compute_downtime_ms"] > 0
    kit.settled(pair)


@pytest.mark.parametrize("rate", [100, 2000])
def test_virsh_with_hooks_loses_and_reorders_nothing(pair: Lab, rate: int) -> None:
    with kit.traffic(pair, kit.address(pair), rate) as result:
        done = kit.virsh_migrate(pair)
    assert done.returncode == 0, done.stderr
    nothing_lost(result)
    assert result["duplicated"] <= max(2, rate * 5 // 1000)
    kit.settled(pair)


def test_generation_grows_and_both_hosts_know_it(pair: Lab) -> None:
    before = [binding(pair, host.name) for host in pair.hosts]
    kit.verdict(kit.migrate(pair))
    kit.settled(pair)
    here = kit.where(pair)
    after = [binding(pair, host.name) for host in pair.hosts]
    assert after[0] == after[1]
    assert after[0]["host"] == here.name
    assert after[0]["generation"] > max(one["generation"] for one in before if one)


def binding(lab: Lab, host: str) -> dict[str, object]:
    status = json.loads(kit.vmnet(lab.host(host), "status", "--json").stdout)
    return next((one for one in status["bindings"] if one["name"] == kit.VM), {})


def test_abort_brings_everything_back_and_loses_nothing(pair: Lab) -> None:
    source = kit.where(pair)
    with kit.traffic(pair, kit.address(pair), 1000) as result:
        command = [*kit.VMNET, "migrate", "--json", kit.VM, kit.other(pair, source).name]
        run = source.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert run.stdout is not None
        for line in run.stdout:
            if '"state": "pre-copy"' in line:
                break
        kit.abort(source)
        run.communicate(timeout=60)
    assert run.returncode == 130
    assert kit.where(pair).name == source.name
    nothing_lost(result)
    kit.settled(pair)


def test_dry_run_says_every_step_and_touches_nothing(pair: Lab) -> None:
    kit.settled(pair)
    source = kit.where(pair)
    said = kit.vmnet(source, "migrate", "--dry-run", kit.VM, kit.other(pair, source).name)
    assert said.returncode == 0
    assert "announce the VM's addresses" in said.stdout
    assert kit.where(pair).name == source.name
    assert not kit.left_behind(pair)


@pytest.mark.parametrize(
    ("words", "code", "cause"),
    [
        (("nosuch", "b"), 4, "nosuch"),
        ((kit.VM, "nowhere"), 4, "unknown host 'nowhere'"),
        (("bad\nname", "b"), 2, "vm"),
    ],
)
def test_refuses_what_is_not_there(pair: Lab, words: tuple[str, str], code: int, cause: str) -> None:
    said = kit.vmnet(kit.where(pair), "migrate", *words)
    assert said.returncode == code
    assert cause in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1


def test_refuses_a_paused_vm(pair: Lab) -> None:
    source = kit.where(pair)
    source.run(["virsh", "suspend", kit.VM])
    try:
        said = kit.vmnet(source, "migrate", kit.VM, kit.other(pair, source).name)
    finally:
        source.run(["virsh", "resume", kit.VM])
    assert said.returncode == 6
    assert "paused" in said.stderr


def test_refuses_without_the_bridge_or_the_daemon_at_the_destination(pair: Lab) -> None:
    kit.settled(pair)
    source = kit.where(pair)
    target = kit.other(pair, source)
    target.run(["ip", "link", "set", "br0", "mtu", "1280"])
    try:
        said = kit.vmnet(source, "migrate", kit.VM, target.name)
    finally:
        target.run(["ip", "link", "set", "br0", "mtu", "9000"])
    assert said.returncode == 6
    assert "MTU" in said.stderr
    target.stop_daemon()
    try:
        said = kit.vmnet(source, "migrate", kit.VM, target.name)
    finally:
        target.start_daemon()
        target.wait_daemon()
    assert said.returncode in (5, 9, 10)
    assert target.name in said.stderr
    assert kit.where(pair).name == source.name
    assert not kit.left_behind(pair)


def test_doctor_is_content(pair: Lab) -> None:
    said = kit.vmnet(kit.where(pair), "doctor")
    assert said.returncode == 0, said.stdout
    assert "BAD" not in said.stdout


def test_there_and_back_across_subnets() -> None:
    """The VM keeps its address in a subnet that is not at its new host: the old one forwards, until it comes home."""
    with lab_up("routed", "labrouted") as lab:
        for rate in (1000, 200):
            with kit.traffic(lab, kit.address(lab), rate) as result:
                verdict = kit.verdict(kit.migrate(lab))
            nothing_lost(result)
            assert result["duplicated"] <= verdict["possible_duplicates"]
        kit.settled(lab)  # home again: the tunnel has gone


def test_a_stretched_vm_is_reached_after_its_old_host_has_booted_again() -> None:
    """Of what we made there a reboot leaves the journal alone: no device, no daemon."""
    with lab_up("routed", "labreboot") as lab:
        old = kit.where(lab)
        kit.verdict(kit.migrate(lab))
        ours = "ip -o link | grep -o 'vmt[^@:]*' | xargs -rn1 ip link del"
        old.stop_daemon()
        old.run(["sh", "-c", ours])
        ping = ["busybox", "ping", "-c1", "-W1", kit.address(lab)]
        assert lab.node("client").run(ping, check=False).returncode == 1
        old.start_daemon()
        old.wait_daemon()
        with kit.traffic(lab, kit.address(lab), 200) as result:
            kit.verdict(kit.migrate(lab))
        nothing_lost(result)
        kit.settled(lab)  # home again: the tunnel has gone


def test_over_open_vswitch() -> None:
    """Both ways, each time back to where it was some seconds ago: the switches there remember it."""
    with lab_up("pair-ovs", "labovs") as lab:
        for move in (kit.migrate, kit.virsh_migrate):
            source = kit.where(lab)
            with kit.traffic(lab, kit.address(lab), 500) as result:
                done = move(lab)
            assert done.returncode in (0, 8), done.stderr
            assert kit.where(lab).name != source.name
            said = kit.last_verdict(source)
            assert result["lost"] == 0, (move, result, said)
            assert result["reordered"] == 0 or not said["ordered"], (move, result, said)
        kit.settled(lab)
        _refused_where_its_vlan_is_not(lab)


def _refused_where_its_vlan_is_not(lab: Lab) -> None:
    """With a tag on the VM's port: the other host's uplink carries it, then not."""
    source = kit.where(lab)
    target = kit.other(lab, source)
    (tap,) = (
        one for one in source.run(["ovs-vsctl", "list-ports", "br0"]).stdout.split() if one.startswith("vnet")
    )
    source.run(["ovs-vsctl", "set", "Port", tap, "tag=7"])
    assert kit.vmnet(source, "plan", kit.VM, target.name).returncode == 0
    target.run(["ovs-vsctl", "set", "Port", "up0", "trunks=0,9"])
    said = kit.vmnet(source, "plan", kit.VM, target.name)
    assert said.returncode == 6 and f"VLAN 7 is at no port of bridge 'br0' on {target.name}" in said.stderr
