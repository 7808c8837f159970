"""Both hosts drop what is of no connection that they know; the VM's connections go on at its new host, idle ones too."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kit
import pytest

from vmnet.lab import Host, Lab, lab_up
from vmnet.lab.wait import wait_for

pytestmark = kit.LAB
_MOVES = 5
_ADDRESS = "10.0.0.10"
_ALLOWED = (
    "-m conntrack --ctstate ESTABLISHED,RELATED",
    f"-p tcp --syn -d {_ADDRESS} -m conntrack --ctstate NEW",
    f"-p icmp -d {_ADDRESS} -m conntrack --ctstate NEW",
)
_CONNECTION = """
import socket, struct, sys, time, zlib
from vmnet.probe import wire
idle = sys.argv[2] == "idle"
with socket.create_connection((sys.argv[1], wire.TCP_PORT), 5) as connection:
    connection.settimeout(20)
    connection.sendall(wire.tcp_header(wire.TcpMode.SINK))
    print("connected", flush=True)
    sent = b""
    if idle:
        sys.stdin.readline()
    else:
        connection.setblocking(True)
        import select
        while not select.select([sys.stdin], [], [], 0.02)[0]:
            connection.sendall(b"x" * 100)
            sent += b"x" * 100
    connection.sendall(b"last")
    sent += b"last"
    connection.shutdown(socket.SHUT_WR)
    answer = b""
    while part := connection.recv(64):
        answer += part
    print("same" if wire.decode_tcp_answer(answer) == (len(sent), zlib.crc32(sent)) else answer, flush=True)
"""


def filter_statefully(host: Host) -> None:
    host.run(["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1"])
    host.run(["iptables", "-P", "FORWARD", "DROP"])
    for rule in _ALLOWED:
        host.run(["iptables", "-A", "FORWARD", *rule.split(), "-j", "ACCEPT"])


@pytest.fixture(scope="module")
def filtered() -> Iterator[Lab]:
    with lab_up(str(Path(__file__).with_name("shell.yaml")), "labfilter") as lab:
        for host in lab.hosts:
            filter_statefully(host)
        yield lab


@contextlib.contextmanager
def connection(lab: Lab, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Of the client with the VM: ``idle``, or busy while the block lasts. At its end it still has to carry bytes."""
    command = [sys.executable, "-c", _CONNECTION, _ADDRESS, kind]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    held = lab.node("client").popen(command, text=True, **pipes)
    try:
        assert held.stdout is not None
        assert held.stdout.readline() == "connected\n"
        yield held
        out, complaint = held.communicate("\n", timeout=40)
        assert out == "same\n", complaint
    finally:
        held.kill()
        held.wait()


def known(host: Host) -> list[dict[str, Any]]:
    """The VM's connections in the host's table."""
    script = (
        "import json, socket; from dom0.conntrack import table; from dom0.conntrack.peer_form import to_json; "
        f"print(json.dumps([to_json(one) for one in table.about([socket.inet_aton('{_ADDRESS}')], 1000)]))"
    )
    found: list[dict[str, Any]] = json.loads(host.run([sys.executable, "-c", script]).stdout)
    return found


def forget(host: Host) -> None:
    """All connections in the host's table."""
    script = "from dom0.conntrack import table; table.remove([one.key for one in table.first(1000)])"
    host.run([sys.executable, "-c", script])


def test_the_filter_drops_what_it_does_not_know(filtered: Lab) -> None:
    """Else the others would show nothing: without its entry, a connection ends."""
    host = kit.where(filtered)
    ended = False
    with contextlib.suppress(AssertionError), connection(filtered, "idle") as held:
        wait_for("the host to know the connection", lambda: bool(known(host)), 5, 0.1)
        forget(host)
        assert held.stdin is not None
        held.stdin.write("\n")
        held.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            held.wait(5)
        ended = True
        held.kill()
    assert ended, "it was there, and carried nothing more"


def test_an_idle_connection_goes_on(filtered: Lab) -> None:
    """Nothing else has shown the VM's address: it sends nothing at all while it moves."""
    with connection(filtered, "idle"):
        done = kit.migrate(filtered)
        verdict = kit.verdict(done)
        assert verdict["connections"] >= 1, verdict
        assert verdict["clean"], verdict
        kit.settled(filtered)


@pytest.mark.parametrize("how", [kit.migrate, kit.virsh_migrate], ids=["vmnet", "virsh"])
def test_idle_and_busy_there_and_back(filtered: Lab, how: Any) -> None:
    with connection(filtered, "idle"), connection(filtered, "busy"):
        for _ in range(_MOVES):
            source = kit.where(filtered)
            done = how(filtered)
            assert done.returncode == 0, done.stderr
            assert kit.last_verdict(source)["clean"]
            kit.settled(filtered)


def test_nothing_is_left_at_a_host_that_it_does_not_come_to(filtered: Lab) -> None:
    source = kit.where(filtered)
    target = kit.other(filtered, source)
    forget(target)
    assert not known(target)
    with connection(filtered, "busy"):
        going = source.popen(
            [*kit.VMNET, "migrate", "--json", kit.VM, target.name], stdout=subprocess.PIPE, text=True
        )
        wait_for("the target to know the connection", lambda: bool(known(target)), 20, 0.02)
        kit.abort(source)
        going.communicate(timeout=60)
        assert going.returncode
        kit.settled(filtered)
        assert kit.where(filtered) is source
        assert not known(target)
