"""Whether the parts of a topology fit together."""

from __future__ import annotations

from vmnet.errors import ConfigError
from vmnet.lab.topology import MACHINE_NAMES, MACHINE_PORTS, SWITCH, End, Node, Topology, Vm

_SECTION = {"host": "hosts", "client": "clients", "switch": "switches", "router": "routers"}


def check(topology: Topology) -> None:
    """Raises ConfigError naming the path of the first key that does not fit the rest."""
    _links(topology)
    for node in topology.nodes.values():
        _node(topology, node)
    for vm in topology.vms.values():
        _vm(topology, vm)
    _ovn(topology)


def _bad(path: str, complaint: str) -> ConfigError:
    return ConfigError(f"topology: {path} {complaint}")


def _links(topology: Topology) -> None:
    seen = set()
    for n, link in enumerate(topology.links):
        for m, end in enumerate(link.ends):
            path = f"links[{n}].ends[{m}]"
            if end.node not in topology.nodes:
                raise _bad(path, f"names no node: '{end.node}'")
            if end in seen:
                raise _bad(path, f"is used twice: {end.node}:{end.port}")
            seen.add(end)


def _node(topology: Topology, node: Node) -> None:
    path = f"{_SECTION[node.kind]}.{node.name}"
    ports = topology.ports(node.name)
    bridges = {b.name for b in node.bridges}
    if clash := bridges & set(ports):
        raise _bad(f"{path}.bridges.{min(clash)}", "is also the name of a link's end")
    known = set(ports) if node.kind == "switch" else {*ports, *bridges}
    taken: set[str] = set()
    for bridge in node.bridges:
        for n, port in enumerate(bridge.ports):
            if port not in ports or port in taken:
                why = "is in two bridges" if port in taken else f"is the end of no link: '{port}'"
                raise _bad(f"{path}.bridges.{bridge.name}.ports[{n}]", why)
            taken.add(port)
    for key, names in (
        ("addresses", node.addresses),
        ("macs", node.macs),
        ("plain_checksums", node.plain_checksums),
    ):
        for name in names:
            if name not in known and (key, name) != ("addresses", "lo"):
                raise _bad(f"{path}.{key}", f"names no port or bridge: '{name}'")
    _access(topology, node, path)
    if node.kind == "host" and not node.underlay:
        raise _bad(f"{path}.addresses", "has no IPv4 address; libvirt needs one")
    if node.machine:
        _machine(topology, node, path)


def _machine(topology: Topology, node: Node, path: str) -> None:
    """What a machine cannot have."""
    for bridge in node.bridges:
        if bridge.kind == "ovn":
            raise _bad(f"{path}.bridges.{bridge.name}.kind", "is ovn: a machine has linux or ovs bridges")
    if node.plain_checksums:
        raise _bad(f"{path}.plain_checksums", "is for namespaces: a machine's kernel fills checksums in")
    ports = topology.ports(node.name)
    if len(ports) > MACHINE_PORTS:
        raise _bad(path, f"has {len(ports)} links: a machine has at most {MACHINE_PORTS}")
    for port in ports:
        if port in MACHINE_NAMES:
            raise _bad(path, f"has a link's end named '{port}': the machine has that interface already")
    for bridge in node.bridges:
        if bridge.name in MACHINE_NAMES:
            raise _bad(f"{path}.bridges.{bridge.name}", "has the name of an interface of the machine")
    mtus = {end.port: link.mtu for link in topology.links for end in link.ends if end.node == node.name}
    for bridge in node.bridges:
        for port in bridge.ports:
            if bridge.mtu > mtus[port]:
                where = f"{path}.mtu" if node.kind == "switch" else f"{path}.bridges.{bridge.name}.mtu"
                raise _bad(where, f"is {bridge.mtu}, and the link at '{port}' has {mtus[port]}")
    others = [host.name for host in topology.hosts if host.machine is None]
    if others and node.kind == "host":
        raise _bad(
            f"{path}.kind", f"is machine, and {others[0]} is a namespace: hosts are all the one or the other"
        )


def _access(topology: Topology, node: Node, path: str) -> None:
    """Only clients come and go at access ports."""
    ends = topology.across()
    for n, port in enumerate(node.access):
        if port in node.access[:n]:
            raise _bad(f"{path}.access[{n}]", f"is named twice: '{port}'")
        if port in node.addresses or port == SWITCH:
            raise _bad(f"{path}.access[{n}]", f"is no port of the bridge: '{port}'")
        there = ends.get(End(node.name, port))
        if there is not None and topology.nodes[there.node].kind != "client":
            raise _bad(f"{path}.access[{n}]", f"has a link to {there.node}, which is no client")


def _ovn(topology: Topology) -> None:
    centrals = [node for node in topology.nodes.values() if node.ovn_central]
    for extra in centrals[1:]:
        raise _bad(f"clients.{extra.name}.ovn_central", f"is a second one: {centrals[0].name} is it")
    for node in centrals:
        if not node.underlay:
            raise _bad(f"clients.{node.name}.addresses", "has no IPv4 address; OVN needs one")
    for node in topology.nodes.values():
        bridges = [bridge.name for bridge in node.bridges if bridge.kind == "ovn"]
        path = f"{_SECTION[node.kind]}.{node.name}"
        if bridges and not centrals:
            raise _bad(f"{path}.bridges.{bridges[0]}.kind", "is ovn, and no client has ovn_central: true")
        if bridges and not node.underlay:
            raise _bad(f"{path}.addresses", "has no IPv4 address; OVN needs one")
        if len(bridges) > 1:
            raise _bad(
                f"{path}.bridges.{bridges[1]}.kind", f"is ovn, as {bridges[0]} is: a node has one such bridge"
            )


def _vm(topology: Topology, vm: Vm) -> None:
    host = topology.nodes.get(vm.host)
    if host is None or host.kind != "host":
        raise _bad(f"vms.{vm.name}.host", f"names no host: '{vm.host}'")
    for n, interface in enumerate(vm.interfaces):
        if interface.bridge not in {b.name for b in host.bridges}:
            raise _bad(
                f"vms.{vm.name}.interfaces[{n}].bridge", f"is no bridge of {vm.host}: '{interface.bridge}'"
            )
