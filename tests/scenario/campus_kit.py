"""What the scenarios on topology campus share: traffic from both buildings, ways by the switches' tables, frames with lies in them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import permutations
from typing import Any

import kit
import networkx

from controller_bridge.core import marks
from controller_bridge.openflow.match import Field
from vmnet.bench.child import PIPES, Child
from vmnet.lab import Lab, ways
from vmnet.lab.wait import wait_for

V4, V6 = "10.1.0.10", "fd01::10"
RATE = 100
PROBES = {
    f"udp {client} IPv{version}": (client, [address, "--rate", str(RATE)])
    for client in ("c1", "c3")
    for version, address in ((4, V4), (6, V6))
}
"""c1 is in the VM's subnet; c3 in the other one, behind the gateway."""
RECEIVING = "tcp from the VM"
STREAMS = {
    "tcp to the VM": ("c1", [V4, "--mode", "tcp-send", "--kbit", "1000"]),
    RECEIVING: ("c3", [V6, "--mode", "tcp-receive", "--kbit", "1000"]),
}
LIMIT_S, RECEIVE_S = 120, 10
Results = dict[str, dict[str, Any]]


@contextmanager
def traffic(lab: Lab) -> Iterator[Results]:
    """UDP both ways and TCP, from both subnets, while the block runs and RECEIVE_S at least; then the results are there."""
    results: Results = {}
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(_probe(lab, name, client, words))
            for name, (client, words) in {**PROBES, **STREAMS}.items()
        }
        for child in children.values():
            child.expect("start", lambda line: line.get("event") == "started", 60)
        yield results
        received = children.pop(RECEIVING)
        results[RECEIVING] = _result(received)
        for child in children.values():
            child.process.send_signal(signal.SIGTERM)
        results.update({name: _result(child) for name, child in children.items()})


def _result(child: Child) -> dict[str, Any]:
    return child.expect("result", lambda line: line.get("event") == "result", LIMIT_S)


def _probe(lab: Lab, name: str, client: str, words: list[str]) -> Child:
    seconds = RECEIVE_S if "tcp-receive" in words else LIMIT_S
    argv = [sys.executable, "-m", "vmnet.probe", *words, "--json", "--duration", str(seconds)]
    return Child(name, lab.node(client).popen(argv, **PIPES))


def sums(results: Results) -> dict[str, int]:
    """Over all UDP streams, both ways."""
    return {
        what: sum(int(results[name][what]) for name in PROBES)
        for what in ("sent", "lost", "duplicated", "reordered")
    }


def streams_whole(results: Results) -> bool:
    return all(results[name]["ok"] and results[name]["bytes"] > 0 for name in STREAMS)


# -- ways ----------------------------------------------------------------------------------------------------------------


def tables(lab: Lab) -> ways.Tables:
    return ways.read(lab.node("controller"))


def fewest(lab: Lab) -> Mapping[str, Mapping[str, int]]:
    """From node to node, by the topology's links alone: those for management left out."""
    now = Lab.load(lab.name).topology
    graph = networkx.Graph()
    for link in now.links:
        if "lan" not in {end.node for end in link.ends}:
            graph.add_edge(*(end.node for end in link.ends))
    return dict(networkx.all_pairs_shortest_path_length(graph))


def not_shortest(lab: Lab) -> list[str]:
    """Pairs of stations whose packets, by the tables, do not arrive by as few links as there can be."""
    least, seen, found = fewest(lab), tables(lab), ways.stations(lab)
    wrong = []
    for (one, other), version in ((pair, v) for pair in permutations(found.values(), 2) for v in (4, 6)):
        way, links = seen.way(one, other, version), least[one.at][other.at]
        if (way.end, way.links) != (other.port, links):
            wrong.append(f"{one.name} -> {other.name}, IPv{version}: {way}, could be {links} links")
    return wrong


def hops(lab: Lab) -> dict[str, int | None]:
    """From each client to the VM and back, which is as far: links, by the switches' tables."""
    seen, found = tables(lab), ways.stations(lab)
    vm = found.pop(kit.VM)
    there = {name: seen.hops(one, vm) for name, one in found.items()}
    assert there == {name: seen.hops(vm, one) for name, one in found.items()}
    return there


def temporary(lab: Lab) -> list[str]:
    """Entries that are there only while something moves: by their port, not ours, or of a move that has not ended."""
    return [
        f"{switch}: {one}"
        for switch, flows in tables(lab).flows.items()
        for one in flows
        if one.match.get(Field.IN_PORT) is not None
        or one.cookie & marks.OWNER_MASK != marks.COOKIE
        or marks.read(one.cookie).partner
    ]


def led(lab: Lab) -> None:
    """Until everybody reaches everybody by a shortest way, and no entry is left that was for a move (15 s) only."""
    wait_for("temporary entries to go", lambda: not temporary(lab), 40, 0.5)
    assert not_shortest(lab) == []


def entries(lab: Lab) -> set[tuple[object, ...]]:
    """All that the tables say, without counters."""
    return {
        (switch, one.table, one.priority, one.match, one.instructions, one.cookie)
        for switch, flows in tables(lab).flows.items()
        for one in flows
    }


# -- moving --------------------------------------------------------------------------------------------------------------


def known(lab: Lab) -> None:
    """Until everybody has been heard by the controller: what it knows, no packet has to wait for."""
    for client in ("c1", "c2", "c3"):
        for address in (V4, V6):
            wait_for(f"{client} to reach {address}", lambda c=client, a=address: pings(lab, c, a), 60)


def pings(lab: Lab, client: str, address: str) -> bool:
    return lab.node(client).run(["busybox", "ping", "-c1", "-W1", address], check=False).returncode == 0


def migrate(lab: Lab, target: str) -> dict[str, Any]:
    return kit.verdict(kit.vmnet(kit.where(lab), "migrate", "--json", kit.VM, target))


def virsh_migrate(lab: Lab, target: str) -> None:
    host = lab.host(target)
    command = ["virsh", "migrate", "--live", kit.VM, host.libvirt_uri, f"tcp://{host.address}"]
    done = kit.where(lab).run(command, check=False, timeout=90)
    assert done.returncode == 0, done.stderr


def bring_to(lab: Lab, host: str) -> None:
    if kit.where(lab).name != host:
        migrate(lab, host)
        kit.settled(lab)
