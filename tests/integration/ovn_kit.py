"""OVN for tests: databases, northd, and three chassis with an Open vSwitch each, joined by an underlay. It ends with the test."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from dataplane_kit import CLIENT, GUEST, Guest, Host, Packets, Tap, Traffic, bridge, numbers, until, veth
from ovs_kit import Ovs, daemon, folder, listens

SCHEMAS = Path("/usr/share/ovn")
SWITCH, VM_PORT, CLIENT_PORT = "lan", "vm-port", "client-port"
_LIMIT_S = 20.0


def text(mac: bytes) -> str:
    return mac.hex(":")


class Central:
    """The northbound and the southbound database, each with its server, and northd between them."""

    def __init__(self) -> None:
        self.host = Host()
        self.folder = Path(tempfile.mkdtemp(prefix="central-", dir=folder()))
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("nb", "sb"):
            (self.folder / name).mkdir()
            schema = SCHEMAS / f"ovn-{name}.ovsschema"
            subprocess.run(["ovsdb-tool", "create", self.folder / name / "db", schema], check=True)
            self.start(name)
        self.northd = daemon(
            self.host, self.folder, "ovn-northd", f"--ovnnb-db={self.remote('nb')}", f"--ovnsb-db={self.remote('sb')}"
        )  # fmt: skip
        self.nbctl("init")

    def remote(self, name: str) -> str:
        return f"unix:{self.folder}/{name}/sock"

    def start(self, name: str, *words: str) -> None:
        """``words``: more for its command line."""
        at = self.folder / name
        self._servers[name] = daemon(self.host, at, "ovsdb-server", "db", f"--remote=punix:{at}/sock", *words)
        until(lambda: listens(at / "sock"), _LIMIT_S, f"the {name} server listens")

    def kill(self, name: str) -> None:
        self._servers[name].kill()
        self._servers[name].wait()
        (self.folder / name / "sock").unlink()

    def nbctl(self, *words: str) -> str:
        return _said("ovn-nbctl", f"--db={self.remote('nb')}", "--timeout=20", *words)

    def sbctl(self, *words: str) -> str:
        return _said("ovn-sbctl", f"--db={self.remote('sb')}", "--timeout=20", *words)

    def port(self, name: str = VM_PORT) -> dict[str, Any]:
        """A Logical_Switch_Port's columns."""
        return _row(self.nbctl("--format=json", "list", "Logical_Switch_Port", name))

    def binding(self, name: str = VM_PORT) -> tuple[str, list[str]]:
        """On which chassis it is ("": none), and on which besides."""
        names = {row["_uuid"]: row["name"] for row in _rows(self.sbctl("--format=json", "list", "Chassis"))}
        for row in _rows(self.sbctl("--format=json", "find", "Port_Binding", f"logical_port={name}")):
            main = [names[one] for one in _set(row["chassis"])]
            return "".join(main), sorted(names[one] for one in _set(row["additional_chassis"]))
        return "", []


def _said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def _rows(said: str) -> list[dict[str, Any]]:
    table = json.loads(said)
    return [dict(zip(table["headings"], map(_plain, row), strict=True)) for row in table["data"]]


def _row(said: str) -> dict[str, Any]:
    rows = _rows(said)
    assert len(rows) == 1, rows
    return rows[0]


def _plain(value: Any) -> Any:
    """RFC 7047, 5.1: maps and UUIDs as JSON."""
    if isinstance(value, list) and value[0] == "map":
        return dict(value[1])
    if isinstance(value, list) and value[0] == "set":
        return [_plain(one) for one in value[1]]
    return value[1] if isinstance(value, list) else value


def _set(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class Chassis:
    """A host: its bridge to the underlay, ``br-int`` and ovn-controller."""

    def __init__(self, central: Central, name: str, number: int, underlay: Host) -> None:
        self.name = name
        self.ovs = Ovs("br-phy")
        self.ovs.vsctl("set-fail-mode", "br-phy", "standalone")
        self.ovs.vsctl(
            "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev", "fail_mode=secure"
        )
        veth(self.ovs.host, "wire", underlay, f"to-{name}")
        self.ovs.add_port("wire")
        with self.ovs.host:
            for words in (f"addr add 172.17.0.{number}/24 dev br-phy", "link set br-phy up"):
                subprocess.run(["ip", *words.split()], check=True)
        known = {
            "system-id": name, "hostname": f"host-{name}", "ovn-remote": central.remote("sb"), "ovn-encap-type": "geneve",
            "ovn-encap-ip": f"172.17.0.{number}", "ovn-bridge-datapath-type": "netdev",
        }  # fmt: skip
        self.ovs.vsctl(
            "set", "Open_vSwitch", ".", *(f"external_ids:{key}={value}" for key, value in known.items())
        )
        self.controller: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.controller = daemon(
            self.ovs.host, self.ovs.folder, "ovn-controller", f"unix:{self.ovs.folder}/db.sock"
        )

    def kill_controller(self) -> None:
        assert self.controller is not None
        self.controller.kill()
        self.controller.wait()

    def plug(self, device: str, port: str) -> None:
        """As a hypervisor does it for a VM that it starts."""
        self.ovs.vsctl(
            "--may-exist",
            "add-port",
            "br-int",
            device,
            "--",
            "set",
            "interface",
            device,
            f"external_ids:iface-id={port}",
        )

    def unplug(self, device: str) -> None:
        self.ovs.vsctl("--if-exists", "del-port", "br-int", device)


class Ovn:
    """A logical switch with the VM's port, which may be on chassis ``a`` and ``b``, and a client's on ``c``."""

    def __init__(self, requested: str = "a") -> None:
        self.central = Central()
        self._underlay = Host()
        self.chassis = {
            name: Chassis(self.central, name, number, self._underlay) for number, name in enumerate("abc", 1)
        }
        with self._underlay:
            bridge("underlay", *(f"to-{name}" for name in self.chassis))
        self.client = Host()
        veth(self.client, "eth0", self.chassis["c"].ovs.host, "client")
        address = {VM_PORT: f"{text(GUEST)} 10.0.0.1", CLIENT_PORT: f"{text(CLIENT)} 10.0.0.2"}
        words = ["ls-add", SWITCH]
        for name, one in address.items():
            words += ["--", "lsp-add", SWITCH, name, "--", "lsp-set-addresses", name, one]
        words += ["--", "lsp-set-port-security", VM_PORT, text(GUEST)]
        if requested:
            words += ["--", "lsp-set-options", VM_PORT, f"requested-chassis={requested}", "mcast_flood=false"]
        self.central.nbctl(*words)
        self.chassis["c"].plug("client", CLIENT_PORT)
        with self.client:
            self.packets = Packets("eth0")

    def tap(self, chassis: str, port: str = VM_PORT, device: str = "tap0") -> Tap:
        """The VM's, on that host, plugged in. Nobody reads it yet."""
        with self.chassis[chassis].ovs.host:
            tap = Tap(device)
        self.chassis[chassis].plug(device, port)
        return tap

    def ready(self) -> None:
        until(lambda: self.central.binding() == ("a", []), _LIMIT_S, "the VM's port is bound")
        until(lambda: self.central.binding(CLIENT_PORT) == ("c", []), _LIMIT_S, "the client's port is bound")
        self.central.nbctl("--wait=hv", "sync")


class Course:
    """Numbered packets from the client, a few hundred a second, and where they come out."""

    def __init__(self, ovn: Ovn, rate: int = 500) -> None:
        self.taps = {"a": ovn.tap("a")}
        ovn.ready()
        self.taps["b"] = ovn.tap("b")
        self._ovn, self._rate = ovn, rate
        self._guests = {"a": Guest(self.taps["a"])}
        self._gone: dict[str, list[bytes]] = {}
        self._traffic = Traffic(ovn.packets.send, rate)
        until(lambda: self.got("a"), _LIMIT_S, "packets come to the source")
        self._first = self.got("a")[0]  # none before the client's switch knew the way

    def got(self, chassis: str, stream: int = 0) -> list[int]:
        """What the guest there has read."""
        guest = self._guests.get(chassis)
        return numbers(list(guest.got), stream) if guest else []

    def go_on(self, s: float = 0.2) -> int:
        """Lets packets come for so long; the number of the last one."""
        began = self._last()
        until(lambda: self._last() >= began + s * self._rate, _LIMIT_S, "packets come to the guests")
        return self._last()

    def _last(self) -> int:
        return max([*self.got("a"), *self.got("b")], default=0)

    def stop(self, chassis: str) -> None:
        """The guest stands still there; what comes waits in its tap."""
        self._guests[chassis].stop()

    def run(self, chassis: str) -> None:
        """The guest runs there: reads what waits, and what comes."""
        ran = self._guests.get(chassis)
        self._guests[chassis] = Guest(self.taps[chassis])
        if ran:
            self._guests[chassis].got[:0] = ran.got

    def end(self) -> Outcome:
        sent = self._traffic.stop()
        until(lambda: self._last() == sent - 1, _LIMIT_S, "the last packet comes")
        for guest in self._guests.values():
            guest.stop()
        waiting = {chassis: numbers(tap.drain()) for chassis, tap in self.taps.items()}
        return Outcome(self._first, sent, self.got("a"), self.got("b"), waiting["a"], waiting["b"])


class Outcome(NamedTuple):
    """``a``, ``b``: what the guest read there; ``left_a``, ``left_b``: what waits in that tap for nobody."""

    first: int
    sent: int
    a: list[int]
    b: list[int]
    left_a: list[int]
    left_b: list[int]

    @property
    def lost(self) -> set[int]:
        """Came out nowhere."""
        return set(range(self.first, self.sent)) - {*self.a, *self.b, *self.left_a, *self.left_b}

    @property
    def stranded(self) -> set[int]:
        """Came out at the source alone, after its guest had stopped."""
        return set(self.left_a) - {*self.b, *self.left_b}

    @property
    def twice(self) -> set[int]:
        """Read by both guests."""
        return set(self.a) & set(self.b)


def rarp(mac: bytes = GUEST) -> bytes:
    """QEMU's announcement of a guest that resumes (RFC 903; net/announce.c)."""
    packet = bytes.fromhex("0001080006040003") + (mac + bytes(4)) * 2
    return (b"\xff" * 6 + mac + b"\x80\x35" + packet).ljust(60, b"\0")
