"""Making the namespaces and the wires between them."""

from __future__ import annotations

from collections.abc import Iterable

from vmnet.lab import command, offload, wiring
from vmnet.lab.command import run
from vmnet.lab.node import Node
from vmnet.lab.paths import LabPaths
from vmnet.lab.topology import Topology


def make_namespaces(nodes: Iterable[Node], lock: int) -> None:
    """Namespaces with their settings, each kept by a holder process.

    ``ip`` outlives us if we are killed: it holds the lab's ``lock`` as well, so that nobody takes the lab down beside it.
    """
    nodes = list(nodes)
    _batch([], [f"netns add {node.netns_name}" for node in nodes], lock)
    names = wiring.hosts_file(node.spec for node in nodes)
    for node in nodes:
        node.hold(names)
    for node in nodes:
        node.wait_held()
        _settings(node)


def wire(paths: LabPaths, topology: Topology, nodes: Iterable[Node]) -> None:
    """Links and Linux bridges."""
    _batch([], wiring.link_lines(paths, topology))
    for node in nodes:
        batch(node, wiring.node_lines(topology, node.spec))
        for port in node.spec.plain_checksums:
            offload.turn_off(node.netns_path, port)


def address(nodes: Iterable[Node]) -> None:
    """Addresses and routes; for after every bridge exists."""
    for node in nodes:
        batch(node, wiring.address_lines(node.spec))
        batch(node, wiring.address_lines_v6(node.spec), "-6")


def batch(node: Node, lines: list[str], *options: str) -> None:
    """Lines for ip(8) inside a node's network namespace. Raises LabError at the first that fails."""
    _batch(["-n", node.netns_name, *options], lines)


def _batch(options: list[str], lines: list[str], *inherits: int) -> None:
    if lines:
        run(["ip", *options, "-batch", "-"], text="\n".join(lines) + "\n", inherits=inherits)


def _settings(node: Node) -> None:
    script = [f"echo {value} > /proc/sys/net/{key}" for key, value in wiring.sysctls(node.spec).items()]
    # only where the kernel has br_netfilter: bridged packets are no business of the packet filter
    quiet = "for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ -e $f ] && echo 0 > $f; done; true"
    command.run(node.namespace_argv(["/bin/sh", "-e"]), text="\n".join([*script, quiet]) + "\n")
