"""Open vSwitch for tests: each switch has its own database, daemon and namespace, and ends with the test."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dataplane_kit import Host, bridge, die_with_parent, ip, until, veth

from controller_bridge.address import Address
from controller_bridge.paths import Hop
from controller_bridge.paths import Path as FlowPath

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
PROTOCOLS = "OpenFlow13,OpenFlow14"
TRIES = 3
"""An Open vSwitch in user space that gets no processor for 0.1 s loses hundreds, with a move or without. It does not each time."""
_LIMIT_S = 20.0


class Ovs:
    """One bridge, named like the switch. Its OpenFlow ports are numbered in the order in which they are added, from 1."""

    def __init__(self, name: str, protocols: str = PROTOCOLS) -> None:
        self.name, self.host = name, Host()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder()))
        self._protocols = protocols
        self._ports: list[str] = []
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._made = False
        subprocess.run(["ovsdb-tool", "create", self.folder / "conf.db", SCHEMA], check=True)
        self.start()
        self._made = True
        self.vsctl(
            *("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", "fail_mode=secure"),
            *("--", "set", "bridge", name, f"protocols={protocols}"),
        )

    @property
    def address(self) -> Address:
        return Address("unix", str(self.folder / f"{self.name}.mgmt"))

    def start(self) -> None:
        """The daemons; also again, after :meth:`kill`."""
        remote = f"punix:{self.folder}/db.sock"
        self._run("ovsdb-server", "conf.db", f"--remote={remote}")
        until(lambda: listens(self.folder / "db.sock"), _LIMIT_S, "ovsdb-server listens")
        if not self._made:
            self.vsctl("--no-wait", "init")
        self._run("ovs-vswitchd", f"unix:{self.folder}/db.sock")
        socket_name = f"{self.name}.mgmt" if self._made else "ovs-vswitchd.ctl"
        until(lambda: listens(self.folder / socket_name), _LIMIT_S, "ovs-vswitchd listens")

    def _run(self, program: str, *words: str) -> None:
        self._daemons.append(daemon(self.host, self.folder, program, *words))

    def kill(self) -> None:
        """As power fails: both daemons at once."""
        for one in self._daemons:
            one.kill()
            one.wait()
        self._daemons = []
        for name in ("db.sock", "ovs-vswitchd.ctl", f"{self.name}.mgmt"):
            (self.folder / name).unlink(missing_ok=True)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It does not get a processor: what comes meanwhile waits in its sockets."""
        for one in self._daemons:
            one.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for one in self._daemons:
                one.send_signal(signal.SIGCONT)

    def vsctl(self, *words: str) -> str:
        return self._tool("ovs-vsctl", f"--db=unix:{self.folder}/db.sock", "--timeout=10", *words)

    def ofctl(self, command: str, *words: str) -> str:
        return self._tool(
            "ovs-ofctl",
            "-O",
            self._protocols.rpartition(",")[2],
            command,
            f"unix:{self.address.host}",
            *words,
        )

    def _tool(self, *words: str) -> str:
        said = subprocess.run(words, capture_output=True, text=True, timeout=30)
        assert said.returncode == 0, (words, said.stderr)
        return said.stdout

    def add_port(self, device: str) -> int:
        """A device of this switch's namespace; its OpenFlow number."""
        self._ports.append(device)
        number = len(self._ports)
        self.vsctl(
            "add-port", self.name, device, "--", "set", "interface", device, f"ofport_request={number}"
        )
        found = json.loads(self.vsctl("--format=json", "--columns=ofport", "list", "interface", device))
        assert found["data"] == [[number]], found
        return number

    def sent(self, device: str) -> int:
        """Packets out of a device of its namespace so far."""
        for line in Path(f"/proc/{self._daemons[0].pid}/net/dev").read_text().splitlines():
            name, _, counted = line.partition(":")
            if name.strip() == device:
                return int(counted.split()[9])
        raise AssertionError(f"{self.name} has no {device}")

    def send(self, port: int, frame: bytes) -> None:
        """Out of one of its ports."""
        self.ofctl("packet-out", f"in_port=CONTROLLER packet={frame.hex()} actions=output:{port}")

    def dump(self) -> list[str]:
        """Its flows without counters, as ovs-ofctl shows them, sorted."""
        said = self.ofctl("dump-flows", "--no-stats", "--no-names")
        return sorted(line.strip() for line in said.splitlines() if "actions" in line)


def daemon(host: Host, at: Path, program: str, *words: str) -> subprocess.Popen[bytes]:
    """One of Open vSwitch's or OVN's, in a folder of its own; it ends with the test."""
    argv = [program, *words, "-vconsole:off", f"--log-file={at}/{program}.log"]
    if program != "ovn-controller":  # it does not take it
        argv.append(f"--unixctl={at}/{program}.ctl")
    places = {name: str(at) for name in ("OVS_RUNDIR", "OVN_RUNDIR")}
    with host:
        return subprocess.Popen(
            argv, cwd=at, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **places}, preexec_fn=die_with_parent,
        )  # fmt: skip


def listens(at: Path) -> bool:
    """Its socket's file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(at)) == 0


def folder() -> str:
    """Of this test's own: gone with its mounts."""
    there = Path("/run/vmnet-ovs-test")
    if not there.is_mount():
        there.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", there], check=True)
    return str(there)


DIAMOND = (("s1", "s2"), ("s1", "s3"), ("s2", "s4"), ("s3", "s4"))


class Fabric:
    """Every switch an Open vSwitch; ``ports[a, b]``: of a towards b. Without arguments, client - s1 - (s2 or s3) - s4 - server
    (Pisa 2010, figure 4b)."""

    def __init__(
        self,
        links: tuple[tuple[str, str], ...] = DIAMOND,
        ends: dict[str, str] | None = None,
        protocols: str = PROTOCOLS,
    ) -> None:
        ends = {"client": "s1", "server": "s4"} if ends is None else ends
        self.switches = {
            name: Ovs(name, protocols) for name in sorted({one for link in links for one in link})
        }
        self.ends = {end: Host() for end in ends}
        self.ports: dict[tuple[str, str], int] = {}
        for one, other in links:
            veth(self.switches[one].host, other, self.switches[other].host, one)
            self.ports[one, other] = self.switches[one].add_port(other)
            self.ports[other, one] = self.switches[other].add_port(one)
        for end, switch in ends.items():
            veth(self.ends[end], "eth0", self.switches[switch].host, end)
            self.ports[switch, end] = self.switches[switch].add_port(end)

    def controlled_from(self, controller: Host, port: int = 6653) -> None:
        """The switches look for their controller in another host, over a network of its own. Their datapath ids count from 1."""
        with controller:
            bridge("mgmt")
            ip("address", "add", "10.9.0.254/24", "dev", "mgmt")
        for number, (name, ovs) in enumerate(sorted(self.switches.items()), 1):
            veth(controller, name, ovs.host, "mgmt")
            with controller:
                ip("link", "set", name, "master", "mgmt")
            with ovs.host:
                ip("address", "add", f"10.9.0.{number}/24", "dev", "mgmt")
        # A bridge's MAC address is that of one of its ports: only now does it stay.
        for number, (name, ovs) in enumerate(sorted(self.switches.items()), 1):
            ovs.vsctl(
                *("set", "bridge", name, f"other-config:datapath-id={number:016x}"),
                *(
                    "other-config:disable-in-band=true",
                    "--",
                    "set-controller",
                    name,
                    f"tcp:10.9.0.254:{port}",
                ),
                *("--", "set", "controller", name, "max_backoff=1000"),
            )

    def path(self, *names: str) -> FlowPath:
        """``path("client", "s1", "s2", "s4", "server")``."""
        inner = zip(names, names[1:-1], names[2:], strict=False)
        return tuple(
            Hop(name, self.ports[name, before], self.ports[name, after]) for before, name, after in inner
        )


def lost_at_most(most: int, there_and_back: Callable[[], list[int]]) -> None:
    """Of each way, in one of :data:`TRIES` tries: what a move itself costs it costs each time.

    ``there_and_back``: how many packets were lost, more than in a control run.
    """
    tried: list[list[int]] = []
    while len(tried) < TRIES:
        tried.append(there_and_back())
        if max(tried[-1]) <= most:
            return
    raise AssertionError(f"lost there and back: {tried}, more than {most} each time")
