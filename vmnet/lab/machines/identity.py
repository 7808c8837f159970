"""What makes one machine differ from the next: names, keys, interfaces, bridges. Pure, but for keys; host.py puts it in."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_interface

from vmnet.lab.hostfiles import stable_uuid
from vmnet.lab.topology import Bridge, Node, stable_mac

Files = Mapping[str, tuple[bytes, int]]
"""Path in the machine -> content and mode."""


def interface_mac(lab: str, node: Node, port: str) -> str:
    return node.macs.get(port) or stable_mac(lab, node.name, port, prefix="52:54:01")


def host_uuid(lab: str, node: Node) -> str:
    """The machine's, for firmware, systemd and libvirt: two hosts with the same one are one to libvirt."""
    return stable_uuid(lab, "host", node.name)


def files(lab: str, node: Node, ports: Sequence[str], hosts: str) -> dict[str, str]:
    """Text files, without keys. ``hosts``: /etc/hosts."""
    found = {
        "/etc/hostname": f"{node.name}\n",
        "/etc/hosts": hosts,
        "/etc/machine-id": f"{uuid.UUID(host_uuid(lab, node)).hex}\n",
        "/etc/network/interfaces.d/lab": interfaces(node, ports),
    }
    for port in ports:
        mac = interface_mac(lab, node, port)
        found[f"/etc/systemd/network/20-{port}.link"] = (
            f"[Match]\nMACAddress={mac}\n\n[Link]\nName={port}\nMACAddressPolicy=none\n"
        )
    return found


def interfaces(node: Node, ports: Sequence[str]) -> str:
    """For ifupdown (interfaces(5)): the bridges and what is on them, then the ports that are in none."""
    bridged = {port for bridge in node.bridges for port in bridge.ports}
    blocks = [_bridge(node, bridge) for bridge in node.bridges]
    blocks += [_stanza(node, port, []) for port in ports if port not in bridged]
    return "\n".join(blocks)


def _bridge(node: Node, bridge: Bridge) -> str:
    if bridge.kind == "linux":
        ports = " ".join(bridge.ports) or "none"
        lines = [f"hwaddress {bridge.mac}", f"bridge_ports {ports}", "bridge_stp off", "bridge_fd 0"]
        lines += [f"pre-up ip link set dev {port} mtu {bridge.mtu}" for port in bridge.ports]
        # A bridge follows its smallest port, a VM's, unless its MTU was set; and to set what it is already counts for nothing.
        lines += [f"up ip link set dev {bridge.name} mtu {mtu}" for mtu in (bridge.mtu - 1, bridge.mtu)]
        return _stanza(node, bridge.name, lines)
    # ifupdown's script of Open vSwitch evaluates the line once: the inner quotes are for ovs-vsctl
    mac = rf"other-config:hwaddr=\"{bridge.mac}\""
    extra = (
        f"ovs_extra set bridge {bridge.name} {mac} -- set interface {bridge.name} mtu_request={bridge.mtu}"
    )
    if bridge.secure:  # before it has a port: a ring of bridges that learn is full at once
        extra += f" -- set-fail-mode {bridge.name} secure"
    lines = ["ovs_type OVSBridge", f"ovs_ports {' '.join(bridge.ports)}", extra]
    blocks = [_stanza(node, bridge.name, lines)]
    for port in bridge.ports:
        blocks.append(
            f"allow-{bridge.name} {port}\niface {port} inet manual\n    ovs_bridge {bridge.name}\n"
            f"    ovs_type OVSPort\n    pre-up ip link set dev {port} mtu {bridge.mtu}\n"
        )
        if port in bridge.numbers:
            blocks[-1] += f"    ovs_extra set interface {port} ofport_request={bridge.numbers[port]}\n"
    return "\n".join(blocks)


def _stanza(node: Node, name: str, lines: Sequence[str]) -> str:
    """An interface with its addresses and, if a gateway is on its networks, that."""
    every = [ip_interface(address) for address in node.addresses.get(name, ())]
    method = "static" if any(address.version == 4 for address in every) else "manual"
    text = [f"auto {name}", f"iface {name} inet {method}"]
    first = next((address for address in every if address.version == 4), None)
    text += [f"    {line}" for line in ([f"address {first}"] if first else []) + list(lines)]
    for address in every:
        if address != first:
            more = " nodad" if address.version == 6 else ""
            text.append(f"    up ip address add {address} dev {name}{more}")
    for gateway in map(ip_address, node.gateways):
        if any(gateway in address.network for address in every):
            text.append(f"    up ip -{gateway.version} route add default via {gateway} dev {name}")
    return "\n".join(text) + "\n"


def archive(files: Files) -> bytes:
    """A tar of the files, root's."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()
