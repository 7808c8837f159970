"""What the scenarios of virtual routers share: the router of a lab, its FIB and its neighbours' sessions, and what is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import kit
import streams

from vmnet.errors import LabError
from vmnet.lab import Host, Lab, announce, routing, sessions
from vmnet.lab.wait import wait_for

VM = "vr1"
NETNS = "vmnet-vr1"
REPEAT = int(os.environ.get("VMNET_TEST_REPEAT", "1"))
"""How often what moves there and back does so; more is for long runs."""
_PIECES = 12
CLIENT4, CLIENT6 = "192.0.2.1", "fd01::100"
SERVER4, SERVER6 = "100.64.0.1", "2001:db8::1"
"""In the first prefixes that the server announces by BGP: the router has no better way to them."""
WAYS = (
    streams.Way("client", CLIENT4, "server", SERVER4, 1000),
    streams.Way("server", SERVER4, "client", CLIENT4, 1000),
    streams.Way("client", CLIENT6, "server", SERVER6, 200),
    streams.Way("server", SERVER6, "client", CLIENT6, 200),
)


def prepare(lab: Lab) -> None:
    """The server answers in what it announces; every router has converged."""
    server = lab.node("server")
    for version, address in ((4, SERVER4), (6, SERVER6)):
        server.run(["ip", f"-{version}", "route", "replace", "local", address, "dev", "lo", "table", "local"])
    routing.wait_converged(lab)


def where(lab: Lab) -> Host:
    """The one host where the router's VM runs."""

    def one() -> Host | None:
        found = [host for host in lab.hosts if VM in kit.running(host)]
        assert len(found) < 2, "the VM runs twice"
        return found[0] if found else None

    return wait_for("the router to run somewhere", one, 30, 0.1)


def other(lab: Lab, host: Host) -> Host:
    return next(one for one in lab.hosts if one.name != host.name)


def add(host: Host, *options: str) -> None:
    done = kit.vmnet(host, "router", "add", VM, "--management", "mgmt", *options)
    assert done.returncode == 0, done.stderr


def remove(host: Host) -> None:
    done = kit.vmnet(host, "router", "remove", VM)
    assert done.returncode == 0, done.stderr


def listed(host: Host) -> dict[str, Any]:
    """What ``vmnet router list`` says of the router here; empty if it has no data plane here."""
    done = kit.vmnet(host, "router", "list", "--json")
    assert done.returncode == 0, done.stderr
    return next((one for one in json.loads(done.stdout)["routers"] if one["name"] == VM), {})


def wait_forwarding(host: Host, limit_s: float = 60) -> None:
    """Until the host forwards and has all routes."""

    def ready() -> bool:
        found = listed(host)
        return bool(found) and found["data"] == "pass" and found["synchronised"] and found["vm_here"]

    wait_for(f"{host.name} to forward for {VM}", ready, limit_s, 0.2)


def forwarding(lab: Lab) -> Host:
    """The host of the router; it has been made one if it was none, and has all routes."""
    host = where(lab)
    if not listed(host):
        add(host)
    wait_forwarding(host)
    return host


def migrate(lab: Lab, target: str | None = None) -> dict[str, Any]:
    """The verdict."""
    source = where(lab)
    name = target or other(lab, source).name
    done = kit.vmnet(source, "migrate", "--json", VM, name)
    assert where(lab).name == name, done.stderr + done.stdout[-500:] + kit.log(source)[-2000:]
    return kit.verdict(done)


def virsh_migrate(lab: Lab) -> subprocess.CompletedProcess[str]:
    source = where(lab)
    target = other(lab, source)
    command = ["virsh", "migrate", "--live", "--persistent", "--undefinesource", VM]
    return source.run([*command, target.libvirt_uri, f"tcp://{target.address}"], check=False, timeout=90)


@contextmanager
def undisturbed(lab: Lab, ways: tuple[streams.Way, ...] = WAYS) -> Iterator[streams.Traffic]:
    """Traffic through the router in this block loses, doubles and reorders nothing, and no neighbour loses a session."""
    before = uptimes(lab)
    with streams.flowing(lab, ways) as traffic:
        yield traffic
    assert not traffic.problems(), traffic.problems()
    went = flapped(before, uptimes(lab))
    assert not went, went


PINNED = (
    streams.Way("client", "10.1.0.100", "server", SERVER4, 1000),
    streams.Way("server", SERVER4, "client", "10.1.0.100", 1000),
    streams.Way("client", CLIENT6, "server", SERVER6, 200),
    streams.Way("server", SERVER6, "client", CLIENT6, 200),
)
_PINS = (
    ("client", SERVER4, "10.1.0.1"),
    ("client", SERVER6, "fd01::1"),
    ("server", "10.1.0.100", "10.2.0.1"),
    ("server", CLIENT6, "fd02::1"),
)
_PIN_TABLE = "77"


@contextmanager
def pinned(lab: Lab) -> Iterator[None]:
    """The ends of ``PINNED`` send to the router whether it keeps its sessions or not, by a table that their FRR does not know."""
    try:
        for node, target, gateway in _PINS:
            family = "-6" if ":" in target else "-4"
            route = ["ip", family, "route", "replace", target, "via", gateway, "table", _PIN_TABLE]
            lab.node(node).run(route)
            lab.node(node).run(["ip", family, "rule", "add", "to", target, "table", _PIN_TABLE, "pref", "77"])
        yield
    finally:
        for node, target, _ in _PINS:
            family = "-6" if ":" in target else "-4"
            rule = ["ip", family, "rule", "del", "to", target, "table", _PIN_TABLE, "pref", "77"]
            lab.node(node).run(rule, check=False)


@contextmanager
def flowing_freely(lab: Lab) -> Iterator[streams.Traffic]:
    """As :func:`undisturbed` between the ends of ``PINNED``, whatever becomes of the sessions."""
    with streams.flowing(lab, PINNED) as traffic:
        yield traffic
    assert not traffic.problems(), traffic.problems()


Uptimes = dict[tuple[str, str], float]
"""(node, protocol and neighbour) -> since when, seconds of the Unix clock; -1: not up."""


def uptimes(lab: Lab) -> Uptimes:
    """Since when each OSPF and BGP session is up, as the VM's neighbours see it."""
    found: Uptimes = {}
    for node in (one for one in lab.nodes.values() if one.spec.frr):
        bgp = node.vtysh_json(sessions.BGP)
        for family, peers in bgp.items():
            for name, peer in peers.get("peers", {}).items():
                up = peer["state"] == "Established"
                found[node.name, f"BGP {family} {name}"] = peer["peerUptimeEstablishedEpoch"] if up else -1
        ospf = node.vtysh_json("show ip ospf neighbor detail json")["neighbors"]
        for name, entries in ospf.items():
            for one in entries:
                up = one["nbrState"].startswith("Full")
                since = time.time() - one["lastPrgrsvChangeMsec"] / 1000
                found[node.name, f"OSPF {name}"] = since if up else -1
    return found


def bfd_downs(lab: Lab) -> int:
    """How often BFD sessions of the VM's neighbours have gone down since they began."""
    total = 0
    for node in (one for one in lab.nodes.values() if one.spec.frr):
        total += sum(one["session-down"] for one in node.vtysh_json("show bfd peers counters json"))
    return total


def wait_packets(traffic: streams.Traffic, more: int) -> None:
    """Until so many more have been sent, in all."""
    goal = sum(one.sent for one in traffic.streams) + more
    wait_for(f"{more} more packets", lambda: sum(one.sent for one in traffic.streams) >= goal, 20)


def bfd_quiet(lab: Lab, packets: int = 1500) -> bool:
    """The control: whether BFD holds with as much traffic and no migration."""
    before = bfd_downs(lab)
    with streams.flowing(lab, WAYS) as traffic:
        wait_packets(traffic, packets)
    return bfd_downs(lab) == before


def flapped(before: Uptimes, after: Uptimes) -> list[str]:
    """What is not up any more, or up since later. FRR rounds a session's beginning to seconds."""
    return [
        f"{node}: {what} was up since {before[node, what]}, now {after.get((node, what))}"
        for node, what in before
        if abs(before[node, what] - after.get((node, what), -1)) > 1.5
    ]


Route = tuple[str, frozenset[tuple[str, str]]]
"""Prefix, and (gateway or "", interface) of each next hop."""


def kernel_routes(host: Host, version: int) -> set[Route]:
    """The main table of the router's namespace, without what the kernel itself put there."""
    said = host.run(["ip", "-n", NETNS, "-j", "-d", f"-{version}", "route"]).stdout
    return {
        (_prefix(one["dst"], version), frozenset(_hops(one)))
        for one in json.loads(said)
        if one.get("protocol") != "kernel" and one.get("type", "unicast") == "unicast"
    }


def _hops(route: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for one in route.get("nexthops") or [route]:
        yield one.get("gateway") or one.get("via", {}).get("host", ""), one["dev"]


def _prefix(text: str, version: int) -> str:
    if text == "default":
        return "0.0.0.0/0" if version == 4 else "::/0"
    return text if "/" in text else f"{text}/{32 if version == 4 else 128}"


def rib(lab: Lab, version: int) -> set[Route]:
    """What the VM's zebra has installed, but for what comes from its interfaces' addresses.

    In pieces: 10,000 routes as one JSON text are more than zebra has memory for in a VM of 192 MiB.
    """
    words = [word for command in _rib_commands(version) for word in ("-c", command)]
    said = routing.in_vm(lab, VM, ["vtysh", *words], 60).strip()
    return {
        (prefix, frozenset(_chosen(one)))
        for piece in _json_texts(said)
        for prefix, entries in piece.items()
        for one in entries
        if one.get("selected") and one.get("installed")
    }


def _rib_commands(version: int) -> list[str]:
    """The BGP routes of the first ``_PIECES`` x 1024 prefixes that a node may announce, and all of the other protocols."""
    if version == 6:
        return ["show ipv6 route bgp json", "show ipv6 route static json"]
    pieces = (announce.ipv4_prefix(1024 * number).replace("/28", "/18") for number in range(_PIECES))
    bgp = [f"show ip route {piece} longer-prefixes bgp json" for piece in pieces]
    return [*bgp, "show ip route ospf json", "show ip route static json"]


def _json_texts(said: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder()
    while said:
        found, end = decoder.raw_decode(said)
        yield found
        said = said[end:].lstrip()


def _chosen(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for one in entry["nexthops"]:
        if one.get("fib") and not one.get("recursive"):
            yield one.get("ip", ""), one["interfaceName"]


def fib_difference(lab: Lab, host: Host) -> list[str]:
    """Where the host's FIB differs from the VM's RIB, entry by entry."""
    found = []
    for version in (4, 6):
        kernel, wanted = kernel_routes(host, version), rib(lab, version)
        if not wanted:
            return ["the VM's RIB is empty"]
        found += [f"only in the kernel: {one}" for one in sorted(kernel - wanted, key=str)[:5]]
        found += [f"only in the RIB: {one}" for one in sorted(wanted - kernel, key=str)[:5]]
    return found


def wait_same_fib(lab: Lab, host: Host, limit_s: float = 30) -> None:
    last: list[str] = []

    def same() -> bool:
        try:
            last[:] = fib_difference(lab, host)
        except LabError as error:  # a daemon in the VM that is starting does not answer yet
            last[:] = [str(error)]
        return not last

    try:
        wait_for("", same, limit_s, 0.5)
    except LabError:
        raise AssertionError(f"{limit_s:g} s later the FIB on {host.name} is not the VM's: {last}") from None


@dataclass(frozen=True)
class Trace:
    devices: list[str]
    namespaces: list[str]
    programs: list[str]


def traces(host: Host) -> Trace:
    """Devices, namespaces and programs of ours on a host."""
    names = str(host.run(["ls", "/sys/class/net"]).stdout).split()
    spaces = str(host.run(["ip", "netns", "list"]).stdout).split("\n")
    return Trace(
        [one for one in names if one.startswith(("vmr", "vmt", "vmp"))],
        [one for one in (line.split(" ")[0] for line in spaces) if one == NETNS],
        kit.programs(host),
    )


def left_behind(lab: Lab, stretched: int = 0) -> list[str]:
    """What is too much: anything where the router is not, and what belongs to a migration where it is.

    ``stretched``: so many tunnels are links of the router, or of the VM, on each host.
    """
    found = []
    home = where(lab).name
    for host in lab.hosts:
        trace = traces(host)
        moving = [one for one in trace.devices if one.startswith(("vmt", "vmp"))]
        if len(moving) > stretched:
            found.append(f"{host.name}: {moving}")
        if host.name != home:
            rest = [one for one in trace.devices if one.startswith("vmr")] + trace.namespaces
            found += [f"{host.name}: {one}" for one in rest + ([] if stretched else trace.programs)]
        status = json.loads(kit.vmnet(host, "status", "--json").stdout)
        open_ones = [one for one in status["migrations"] + status["history"] if one["finished"] is None]
        found += [f"{host.name}: open in state {one['state']}" for one in open_ones]
    return found


def settled(lab: Lab, stretched: int = 0, limit_s: float = 45) -> None:
    """Until nothing is left behind. AssertionError says what was."""
    last: list[str] = []

    def clean() -> bool:
        last[:] = left_behind(lab, stretched)
        return not last

    try:
        wait_for("", clean, limit_s, 0.2)
    except Exception:
        raise AssertionError(f"left behind after {limit_s:g} s: {last}") from None


def unreachable_prefix(number: int = 9000) -> str:
    """A prefix that no test's traffic goes to."""
    return announce.ipv4_prefix(number)
