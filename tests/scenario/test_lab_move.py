"""Clients roam in a lab that is up, with traffic: where their packets come out, and what is left when a move breaks off."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from vmnet.errors import LabError, NotFoundError, RefusedError
from vmnet.lab import Lab, lab_up, status
from vmnet.lab.down import processes
from vmnet.lab.move import move
from vmnet.lab.paths import LabPaths, known_labs
from vmnet.lab.state import lab_lock
from vmnet.lab.wait import wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("ovs-vswitchd"), reason="needs root and openvswitch"
    ),
]
NAME = "labmove"
PORT = 7100
INTERVAL_S = 0.002
TWO_SWITCHES = """
clients:
  walker:
    addresses: {{eth0: [10.0.0.1/24, "fd00::1/64"]}}
    gateways: [10.0.0.9, "fd00::9"]
    plain_checksums: [eth0]
  other: {{addresses: {{eth0: [10.0.0.2/24]}}, plain_checksums: [eth0]}}
  server: {{addresses: {{eth0: [10.0.0.9/24]}}, plain_checksums: [eth0]}}
switches:
  s1: {{kind: {kind}, mtu: 1500, access: [room1, room2]}}
  s2: {{kind: {kind}, mtu: 1500, access: [room1, room2]}}
links:
  - {{ends: ["s1:s2", "s2:s1"], mtu: 1500}}
  - {{ends: ["server:eth0", "s1:server"], mtu: 1500}}
  - {{ends: ["walker:eth0", "s1:room1"], mtu: 1500}}
  - {{ends: ["other:eth0", "s2:room1"], mtu: 1500}}
"""


@pytest.fixture(params=["ovs", "linux"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    file = tmp_path / "two-switches.yaml"
    file.write_text(TWO_SWITCHES.format(kind=request.param))
    with lab_up(str(file), NAME) as made:
        wait_for("the switches to forward", lambda: pings(made, "other"), 10)
        yield made
    assert NAME not in known_labs()
    assert not list(processes(LabPaths(NAME)))


def pings(lab: Lab, node: str) -> bool:
    return lab.node(node).run(["busybox", "ping", "-c1", "-W1", "10.0.0.9"], check=False).returncode == 0


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "vmnet.cli.lab", "move", "--lab", NAME, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


class Echoes:
    """The walker asks the server, which answers, every 2 ms over sockets that stay the same; who heard what when."""

    def __init__(self, lab: Lab) -> None:
        self._server = lab.node("server").call(lambda: self._socket("10.0.0.9", PORT))
        self._walker = lab.node("walker").call(self._bound)
        self.heard: list[tuple[int, float]] = []
        """Answers: number of the question, and when it came."""
        self.sent = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=one) for one in (self._answer, self._ask, self._hear)]

    @staticmethod
    def _socket(address: str, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(0.2)
        return made

    def _bound(self) -> socket.socket:
        made = self._socket("10.0.0.1", 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        return made

    def __enter__(self) -> Echoes:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for one in self._threads:
            one.join()
        self._server.close()
        self._walker.close()

    def _ask(self) -> None:
        while not self._over.wait(INTERVAL_S):
            with suppress(OSError):  # it has no link at the moment
                self._walker.sendto(self.sent.to_bytes(4, "big"), ("10.0.0.9", PORT))
            self.sent += 1

    def _answer(self) -> None:
        while not self._over.is_set():
            try:
                self._server.sendto(*self._server.recvfrom(100))
            except OSError:
                continue

    def _hear(self) -> None:
        while not self._over.is_set():
            try:
                self.heard.append((int.from_bytes(self._walker.recv(100), "big"), time.monotonic()))
            except OSError:
                continue

    def more(self, answers: int) -> None:
        """Wait for so many more."""
        wanted = len(self.heard) + answers
        wait_for(f"{answers} more answers", lambda: len(self.heard) >= wanted, 10)

    @property
    def longest_silence_s(self) -> float:
        times = [when for _, when in self.heard]
        return max(after - before for before, after in pairwise(times))


def counted(lab: Lab, switch: str, port: str) -> tuple[int, int]:
    """Frames that came in and went out at a switch's port."""
    folder = f"/sys/class/net/{port}/statistics"
    said = lab.node(switch).run(["cat", f"{folder}/rx_packets", f"{folder}/tx_packets"]).stdout.split()
    return int(said[0]), int(said[1])


def facts(lab: Lab, node: str) -> dict[str, object]:
    shown = json.loads(lab.node(node).run(["ip", "-j", "addr", "show", "dev", "eth0"]).stdout)[0]
    routes = lab.node(node).run(["sh", "-c", "ip route; ip -6 route"]).stdout
    addresses = sorted(one["local"] for one in shown["addr_info"])
    same = {key: shown[key] for key in ("address", "ifindex", "mtu")}
    return {**same, "addresses": addresses, "routes": routes}


def ports(lab: Lab, switch: str) -> set[str]:
    return set(lab.node(switch).run(["ls", "/sys/class/net"]).stdout.split())


def test_packets_come_out_where_the_client_is(lab: Lab) -> None:
    before = facts(lab, "walker")
    with Echoes(lab) as echoes:
        echoes.more(50)
        assert counted(lab, "s2", "s1")[0] < 40, "what goes from s1 to s1 does not pass s2"
        done = move(NAME, "walker", "s2:room2")
        assert (done.source, done.target, done.changed) == ("s1:room1", "s2:room2", True)
        echoes.more(100)
        came, went = counted(lab, "s2", "room2")
        assert came >= 100
        assert went >= 100
        assert counted(lab, "s1", "s2")[0] >= 100, "and from there over the link between the switches"
        assert "room1" not in ports(lab, "s1")
        move(NAME, "walker", "s1")
        echoes.more(100)
        assert "room2" not in ports(lab, "s2")
    assert facts(lab, "walker") == before
    assert echoes.longest_silence_s < 1.0, "no question had to be asked again"
    print(f"no link for {done.away_ms:g} ms, silent for {echoes.longest_silence_s * 1000:.0f} ms at longest")
    assert status.report(Lab.load(NAME))["state"] == "up"


def test_moved_twice_is_moved_once(lab: Lab) -> None:
    assert move(NAME, "walker", "s2").changed
    made = ports(lab, "s2")
    again = json.loads(cli("walker", "s2:room2", "--json").stdout)
    assert (again["changed"], again["away_ms"], again["target"]) == (False, 0.0, "s2:room2")
    assert ports(lab, "s2") == made
    report = status.report(Lab.load(NAME))
    assert (report["state"], report["nodes"]["walker"]["at"]) == ("up", "s2:room2")


def test_what_cannot_be_changes_nothing(lab: Lab) -> None:
    before = {switch: ports(lab, switch) for switch in ("s1", "s2")}
    for words, code in ((("nobody", "s2"), 4), (("walker", "s2:room7"), 4), (("walker", "s2:room1"), 6)):
        done = cli(*words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    with pytest.raises(NotFoundError):
        move(NAME, "server", "s2")
    with pytest.raises(NotFoundError, match="no lab 'labmovenone' is up"):
        move("labmovenone", "walker", "s2")
    assert not lab_lock(LabPaths("labmovenone")).exists()
    with pytest.raises(RefusedError, match="in use by other:eth0"):
        move(NAME, "walker", "s2:room1")
    assert {switch: ports(lab, switch) for switch in ("s1", "s2")} == before


def test_a_move_that_breaks_off_is_finished_by_the_next(lab: Lab) -> None:
    before = facts(lab, "walker")
    lab.node("s2").run(["ip", "link", "add", "room2", "type", "bridge"])  # somebody else's
    with pytest.raises(LabError, match=r"the move broke off: .*walker has no link now"):
        move(NAME, "walker", "s2:room2")
    report = status.report(Lab.load(NAME))
    assert (report["state"], report["dead"]) == ("damaged", ["walker: link (its move is unfinished)"])
    assert move(NAME, "walker", "s1:room2").changed
    assert facts(lab, "walker") == before
    assert status.report(Lab.load(NAME))["state"] == "up"
    with Echoes(lab) as echoes:
        echoes.more(20)


@pytest.mark.parametrize("milliseconds", [120, 160, 200, 240, 280])
def test_a_move_that_was_killed_is_finished_by_the_next(lab: Lab, milliseconds: int) -> None:
    before = facts(lab, "walker")
    argv = [sys.executable, "-m", "vmnet.cli.lab", "move", "--lab", NAME, "walker", "s2:room2"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as mover:
        time.sleep(milliseconds / 1000)  # the moment is what is tested, not something waited for
        mover.kill()
    assert move(NAME, "walker", "s2:room2").target == "s2:room2"
    assert status.report(Lab.load(NAME))["state"] == "up"
    assert facts(lab, "walker") == before
    with Echoes(lab) as echoes:
        echoes.more(20)
