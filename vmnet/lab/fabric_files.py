"""What a lab's controller, its hosts and `vmnet flows` are told of its OpenFlow fabric. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface
from typing import Any

from vmnet.lab import toml
from vmnet.lab.schema_switch import host_of
from vmnet.lab.topology import Node, Topology

_API_PORT = 6654


def controller(topology: Topology, spec: Node) -> dict[str, Any]:
    """The controller's settings, the topology's own over what follows from it.

    It listens where switches look for it; they are called as in the topology; where no switch can be is ``outside``.
    """
    found = switches(topology, spec)
    uplinks = _uplinks(topology, found)
    base = {
        "listen": list(dict.fromkeys(found.values())),
        "plain": True,
        "outside": [f"{name}:{port}" for name in found for port in _outside(topology, name)],
        "switches": {name: topology.nodes[name].bridges[0].datapath for name in found},
        "hosts": uplinks,
        "api": {"listen": [_api(one) for one in _addresses(found.values())], "plain": True}
        if uplinks
        else {},
    }
    return toml.merged({key: value for key, value in base.items() if value}, spec.controller or {})


def switches(topology: Topology, spec: Node) -> dict[str, str]:
    """Switches that look for their controller on that node, and where."""
    own = {ip_interface(address).ip for group in spec.addresses.values() for address in group}
    every = ((node.name, one.openflow) for node in topology.nodes.values() for one in node.bridges)
    wanted = {name: openflow.controller for name, openflow in every if openflow and openflow.controller}
    return {name: target for name, target in wanted.items() if ip_address(host_of(target)) in own}


def rerouter(topology: Topology, host: Node) -> dict[str, Any]:
    """The host's ``[rerouter]``: the controller of the fabric that it hangs on; empty if there is none."""
    for spec in topology.nodes.values():
        found = switches(topology, spec) if spec.controller is not None else {}
        if host.name in _uplinks(topology, found):
            asked = _api(next(iter(_addresses(found.values()))))
            return {"kind": "vmnet", "settings": {"controller": asked, "host": host.name}}
    return {}


def fabric(topology: Topology) -> dict[str, Any]:
    """The fabric's file (:mod:`controller_bridge.fabric`), of switches that listen for OpenFlow; empty if none does."""
    found: dict[str, str] = {}
    for node in topology.nodes.values():
        listen = [
            one.openflow.listen_port for one in node.bridges if one.openflow and one.openflow.listen_port
        ]
        own = [str(ip_interface(one).ip) for group in node.addresses.values() for one in group]
        if listen and own:
            found[node.name] = f"tcp:{own[0]}:{listen[0]}"
    if not found:
        return {}
    links = [
        " ".join(f"{end.node}:{end.port}" for end in link.ends)
        for link in topology.links
        if {end.node for end in link.ends} <= found.keys()
        and not any(end.port in topology.nodes[end.node].addresses for end in link.ends)
    ]
    return {"links": links, "switches": found, "hosts": _uplinks(topology, found)}


def _addresses(targets: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(host_of, targets)))


def _api(address: str) -> str:
    return f"tcp:[{address}]:{_API_PORT}" if ":" in address else f"tcp:{address}:{_API_PORT}"


def _uplinks(topology: Topology, of: Iterable[str]) -> dict[str, str]:
    """Host -> the switch's port that it hangs on."""
    known = set(of)
    return {
        other.node: f"{end.node}:{end.port}"
        for end, other in topology.across().items()
        if end.node in known
        and end.port not in topology.nodes[end.node].addresses
        and topology.nodes[other.node].kind == "host"
    }


def _outside(topology: Topology, switch: str) -> list[str]:
    """Ports of a switch that lead to no switch, and those at which clients come and go."""
    spec = topology.nodes[switch]
    away = [
        end.port
        for end, other in topology.across().items()
        if end.node == switch
        and end.port not in spec.addresses
        and topology.nodes[other.node].kind != "switch"
    ]
    return list(dict.fromkeys([*away, *spec.access]))
