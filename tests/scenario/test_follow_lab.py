"""A VM follows: on the campus the command says where it should be, by real tables and traffic; on a plain LAN it goes there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kit

from vmnet.lab import Host, Lab, lab_up
from vmnet.lab.move import move
from vmnet.lab.ovs import set_controllers
from vmnet.lab.wait import wait_for

pytestmark = kit.OVS_LAB
ROOT = Path(__file__).parents[2]
SWITCHES = ("s1", "s2", "s3", "s4", "s5", "s6")
HOSTS = {"h1": "s2", "h2": "s3", "h3": "s5", "h4": "s6"}
ANY_CPU = ("--cpu-most", "1000")
"""This machine's processors are all the hosts', and busy."""


@contextmanager
def ended(*processes: subprocess.Popen[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for one in processes:
            one.terminate()
            one.wait(20)


def follow(host: Host, *words: str) -> dict[str, Any]:
    done = kit.vmnet(host, "follow", "vm1", "--json", *ANY_CPU, *words)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    assert said["event"] == "look"
    return said


# -- the campus ---------------------------------------------------------------------------------------------------------


@contextmanager
def controlled(lab: Lab, there: Path) -> Iterator[None]:
    """The lab's switches obey a vmnet-controllerd in node controller."""

    def datapath(switch: str) -> str:
        said = lab.node(switch).run(["ovs-vsctl", "--timeout=10", "get", "bridge", "switch", "datapath_id"])
        return str(said.stdout).strip()

    names = "".join(f"{name} = {datapath(name)}\n" for name in SWITCHES)
    outside = [f"{switch}:{host}" for host, switch in HOSTS.items()]
    (there / "controller.toml").write_text(
        f'listen = ["tcp:10.0.0.100:6653"]\nplain = true\ngateways = ["10.1.0.254", "fd01::fe", "10.2.0.254", "fd02::fe"]\n'
        f'key = "{there}/lldp.key"\noutside = {json.dumps(outside)}\n[switches]\n{names}'
    )
    argv = [sys.executable, "-m", "controller_bridge.main", "--config", str(there / "controller.toml")]
    with ended(lab.node("controller").popen(argv, cwd=str(ROOT))):
        for name in SWITCHES:
            set_controllers(lab.node(name), "switch", ["ptcp:6653", "tcp:10.0.0.100:6653"])
        yield


def fabric(lab: Lab, there: Path) -> Path:
    links = [
        " ".join(f"{end.node}:{end.port}" for end in link.ends)
        for link in lab.topology.links
        if {end.node for end in link.ends} <= set(SWITCHES)
    ]
    switches = "".join(f'{name} = "tcp:10.0.0.1{name[1:]}:6653"\n' for name in SWITCHES)
    hosts = "".join(f'{host} = "{switch}:{host}"\n' for host, switch in HOSTS.items())
    (there / "fabric.toml").write_text(f"links = {json.dumps(links)}\n[switches]\n{switches}[hosts]\n{hosts}")
    return there / "fabric.toml"


def pings(lab: Lab, client: str) -> bool:
    argv = ["busybox", "ping", "-c1", "-W1", "10.1.0.10"]
    return lab.node(client).run(argv, check=False).returncode == 0


def test_the_vm_should_go_where_its_client_went(tmp_path: Path) -> None:
    with lab_up("campus", "labfollow") as lab, controlled(lab, tmp_path):
        file = fabric(lab, tmp_path)
        for client in ("c1", "c2", "c3"):
            wait_for(f"{client} to reach the VM", lambda client=client: pings(lab, client), 60)
        probe = [*kit.VMNET, "probe", "10.1.0.10", "--rate", "100", "--duration", "120", "--json"]
        few = ["busybox", "ping", "-i", "1", "-q", "10.1.0.10"]

        def starts(client: str, argv: list[str]) -> subprocess.Popen[Any]:
            return lab.node(client).popen(argv, stdout=subprocess.DEVNULL, cwd=str(ROOT))

        with ended(starts("c1", probe), starts("c2", few), starts("c3", few)):
            at_home = follow(lab.host("h1"), "--dry-run", "--fabric", str(file))
            assert (at_home["verdict"], at_home["to"]) == ("stay", "h1"), at_home
            assert at_home["hosts"]["h1"]["hops"]["10.1.0.101"] == 2
        move("labfollow", "c1", "s5:room3")
        wait_for("c1 to reach the VM from the other building", lambda: pings(lab, "c1"), 30)
        with ended(starts("c1", probe), starts("c2", few), starts("c3", few)):
            wait_for("c1 to be heard", lambda: pings(lab, "c1"), 30)
            away = follow(lab.host("h1"), "--dry-run", "--fabric", str(file), "--window", "3")
            said = kit.vmnet(lab.host("h1"), "follow", "vm1", "--dry-run", *ANY_CPU, "--fabric", str(file))
        assert (away["verdict"], away["host"], away["to"]) == ("move", "h1", "h3"), away
        places = {one["address"]: one["place"] for one in away["clients"]}
        assert places == {"10.1.0.101": "s5:room3", "10.1.0.102": "s2:room2", "10.2.0.103": "s5:room1"}
        hops = {host: one["hops"]["10.1.0.101"] for host, one in away["hosts"].items()}
        assert hops == {"h1": 5, "h2": 4, "h3": 2, "h4": 3}
        rates = {one["address"]: one["bytes_per_s"] for one in away["clients"]}
        assert rates["10.1.0.101"] > 20 * rates["10.1.0.102"]
        assert abs(rates["10.1.0.102"] - rates["10.2.0.103"]) <= 98 * 2, "one ping more or less each way"
        assert said.returncode == 0
        assert said.stdout.startswith("vm1 should move from h1 to h3: 2."), said.stdout
        assert [one.host for one in lab.running_vms()] == ["h1"], "it was only asked"
        unknown = kit.vmnet(lab.host("h3"), "follow", "vm1", "--dry-run", "--fabric", str(file))
        assert unknown.returncode == 4, unknown.stderr
        assert "'vm1' does not run on h3" in unknown.stderr


# -- a move --------------------------------------------------------------------------------------------------------------


def test_it_goes_where_it_should_and_stays_there_a_while() -> None:
    """All hosts of a lab are one machine: each is as full as the other, and fuller than either is without the VM, which traffic keeps
    busy. So to pack always says "go". What is shown is that it goes, and that the pause then holds it, on the other host."""
    with lab_up("pair", "labfollow2") as lab:
        a, b = lab.host("a"), lab.host("b")
        words = ("--policy", "pack", "--gain", "0.01")
        argv = [*kit.VMNET, "follow", "vm1", *words, *ANY_CPU, "--watch", "--every", "1", "--json"]
        watching = b.popen(argv, stdout=subprocess.PIPE, text=True)
        with ended(watching), kit.traffic(lab, kit.address(lab), 1000) as result:
            assert watching.stdout is not None
            first = json.loads(watching.stdout.readline())
            assert (first["event"], first["error"]["code"]) == ("failed", 4), first
            wished = follow(a, *words, "--dry-run")
            assert (wished["verdict"], wished["to"]) == ("move", "b"), wished
            done = kit.vmnet(a, "follow", "vm1", *words, *ANY_CPU)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "vm1 runs on b: 0 lost" in done.stdout
            assert [one.host for one in lab.running_vms()] == ["b"]
            looks = (json.loads(line) for line in watching.stdout)
            look = next(one for one in looks if one["event"] == "look")
            assert (look["verdict"], look["host"], look["best"]) == ("wait", "b", "a"), look
            assert 0 < look["again_s"] <= 60
        assert (result["lost"], result["reordered"]) == (0, 0), result
        left = kit.vmnet(a, "follow", "vm1", *words)
        assert (left.returncode, left.stderr) == (
            6,
            "vmnet: VM 'vm1' is on b; run this on b, or on every host with --watch\n",
        )
        kit.settled(lab)
        a.kill_daemon()
        alone = follow(b, *words, "--dry-run")
        assert (alone["verdict"], alone["host"], list(alone["hosts"])) == ("stay", "b", ["b"])
        assert alone["notes"][0].startswith("a is left out: "), alone
