"""What OVN's northbound database says of a lab: a logical switch for each segment, and its ports. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmnet.lab.hostfiles import stable_uuid
from vmnet.lab.topology import End, Topology


@dataclass(frozen=True)
class LogicalPort:
    name: str
    switch: str
    addresses: str
    """MAC and IP addresses as ovn-nb(5) has them; "unknown" where nobody knows the MAC address."""
    chassis: str
    guarded: bool
    """Port security: nothing else may be sent from there."""


def vm_port(lab: str, vm: str, number: int) -> str:
    """The port of a VM's interface. libvirt takes nothing but a UUID."""
    return stable_uuid(lab, "port", vm, str(number))


def link_port(end: End) -> str:
    """The port of a link's end in an OVN bridge."""
    return f"{end.node}-{end.port}"


def logical_ports(lab: str, topology: Topology) -> Iterator[LogicalPort]:
    """Of VMs where they boot, and of link ends with who is at the other end."""
    for vm in topology.vms.values():
        segments = {b.name: b.segment for b in topology.nodes[vm.host].bridges if b.kind == "ovn"}
        for number, one in enumerate(vm.interfaces):
            if one.bridge in segments:
                known = _addresses(one.mac, one.addresses)
                yield LogicalPort(vm_port(lab, vm.name, number), segments[one.bridge], known, vm.host, True)
    across = topology.across()
    for node in topology.nodes.values():
        for bridge in (one for one in node.bridges if one.kind == "ovn"):
            for port in bridge.ports:
                end = End(node.name, port)
                there = across[end]
                peer = topology.nodes[there.node]
                mac = peer.macs.get(there.port)
                known = _addresses(mac, peer.addresses.get(there.port, ())) if mac else "unknown"
                yield LogicalPort(link_port(end), bridge.segment, known, node.name, False)


def _addresses(mac: str, addresses: tuple[str, ...]) -> str:
    return " ".join([mac, *(address.partition("/")[0] for address in addresses)])


def words(ports: list[LogicalPort]) -> list[str]:
    """One transaction of ovn-nbctl(8) that makes all of it."""
    found: list[str] = []
    for switch in dict.fromkeys(port.switch for port in ports):
        found += ["--", "ls-add", switch]
    for port in ports:
        found += [
            "--",
            "lsp-add",
            port.switch,
            port.name,
            "--",
            "lsp-set-addresses",
            port.name,
            port.addresses,
        ]
        found += ["--", "lsp-set-options", port.name, f"requested-chassis={port.chassis}"]
        if port.guarded:
            found += ["--", "lsp-set-port-security", port.name, port.addresses]
    return found[1:]
