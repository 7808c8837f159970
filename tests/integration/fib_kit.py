"""A router, its neighbour and the namespace that forwards for it, for the tests of the FIB's synchronisation."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dom0.fib.agent_state import AgentReport
from dom0.fib.fib import Fib
from dom0.fib.link import VmLink
from dom0.fib.sessions import Sessions
from dom0.fib.settings import FibSettings
from dom0.fib.vm_kernel import VmKernel
from vmnet.bench.fib_stage import Frr, Namespace, scratch, veth

_OWN = ("connected", "local")  # FRR tells of an address itself from release 10 on
ROOT = Path(__file__).parents[2]
MANAGEMENT = "10.255.0.1"
QUICK = FibSettings(settle_s=1.0, restart_s=2.0, addresses_s=0.5)
VIA_A, VIA_B = "10.9.0.2", "10.9.0.3"
VIA6_A, VIA6_B = "2001:db8:9::2", "2001:db8:9::3"


@functools.cache
def agent_program() -> Path:
    """guest/agent.c, compiled once a process into a folder that goes with the test's mounts or the machine's /tmp."""
    import tempfile

    program = Path(tempfile.mkdtemp(prefix="vmnet-agent.")) / "agent"
    subprocess.run(["gcc", "-O2", "-static", "-o", str(program), str(ROOT / "guest" / "agent.c")], check=True)
    return program


class Stage:
    """``vm`` is the router, ``fib`` forwards for it (same index 10), ``gen`` is beyond."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vm, self.fib, self.gen = Namespace(), Namespace(), Namespace()
        veth(self.vm, "mgmt", 5, self.fib, "mgmt", 105)
        veth(self.vm, "up0", 10, self.gen, "g0", 20)
        veth(self.fib, "up0", 10, self.gen, "g1", 21)
        self.vm.ip("addr", "add", "10.255.0.2/24", "dev", "mgmt")
        self.fib.ip("addr", "add", f"{MANAGEMENT}/24", "dev", "mgmt")
        for address in ("10.9.0.1/24", "2001:db8:9::1/64"):
            self.vm.ip("addr", "add", address, "dev", "up0")

    def address_fib(self) -> None:
        """The router's addresses, when no agent brings them."""
        for address in ("10.9.0.1/24", "2001:db8:9::1/64"):
            self.fib.ip("addr", "add", address, "dev", "up0", "nodad")

    def frr(self, groups: bool = True, bgp: str = "", static: Sequence[str] = ()) -> Frr:
        return Frr(self.vm, self.folder, f"{MANAGEMENT} port 2620", groups, bgp, static)

    def agent(self, *options: str) -> subprocess.Popen[bytes]:
        return self.vm.popen([str(agent_program()), *options, MANAGEMENT, "2621"])


@contextmanager
def staged() -> Iterator[Stage]:
    with scratch() as folder:
        yield Stage(folder)


class Heard:
    """What the callbacks were told."""

    def __init__(self) -> None:
        self.changes: list[bytes] = []
        self.links: dict[int, VmLink] = {}
        self.addresses: frozenset[Any] = frozenset()
        self.synced = 0
        self.report: AgentReport | None = None

    def kernel(self) -> VmKernel:
        assert self.report is not None
        return self.report.kernel

    def sessions(self, fib: Fib, space: Namespace, settings: FibSettings = QUICK) -> Sessions:
        def link(one: VmLink) -> None:
            self.links[one.index] = one

        def addresses(found: frozenset[Any]) -> None:
            self.addresses = found

        def reported(report: AgentReport) -> None:
            self.report = report

        def synced() -> None:
            self.synced += 1

        return Sessions(
            *(fib, space.path, MANAGEMENT, "mgmt", settings),
            on_change=self.changes.append,
            on_link=link,
            on_addresses=addresses,
            on_synced=synced,
            on_report=reported,
        )


async def until(condition: Callable[[], Any], limit_s: float, what: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while not condition():
        assert loop.time() < deadline, f"no {what} within {limit_s} s"
        await asyncio.sleep(0.01)


def held(
    space: Namespace, mine: Callable[[str], bool] = lambda _protocol: True
) -> dict[str, set[tuple[str, str]]]:
    """Prefix -> (gateway, device) of every hop, of the kernel's routes that are not its own."""
    found: dict[str, set[tuple[str, str]]] = {}
    for family in ("-4", "-6"):
        for route in json.loads(space.run("ip", family, "-j", "route", "show", "table", "main")):
            if route["protocol"] in ("kernel", "ra"):
                continue
            hops = route.get("nexthops", [route])
            kind = route.get("type", "unicast")
            found[route["dst"]] = {
                (kind if kind != "unicast" else h.get("gateway", ""), h.get("dev", "")) for h in hops
            }
    return found


def rib(frr: Frr) -> dict[str, set[tuple[str, str]]]:
    """FRR's table in the same form: what it has selected and is not connected."""
    found: dict[str, set[tuple[str, str]]] = {}
    for command in ("show ip route json", "show ipv6 route json"):
        for prefix, entries in json.loads(frr.vty(command)).items():
            for entry in entries:
                if entry.get("selected") and entry["protocol"] not in _OWN:
                    hops = [hop for hop in entry["nexthops"] if hop.get("active")]
                    found[prefix] = {
                        ("blackhole", "")
                        if hop.get("blackhole")
                        else (hop.get("ip", ""), hop.get("interfaceName", ""))
                        for hop in hops
                    }
    return found
