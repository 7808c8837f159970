"""From a topology to batches for ip(8). Pure text; net.py runs them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface

from vmnet.lab.machines import wire
from vmnet.lab.paths import LabPaths
from vmnet.lab.topology import Bridge, End, Node, Topology


def link_lines(paths: LabPaths, topology: Topology) -> list[str]:
    """Veth pairs, made straight in their namespaces: the namespace of the caller never sees them."""

    def end(e: End, mtu: int) -> str:
        node = topology.nodes[e.node]
        mac = None if node.machine else node.macs.get(e.port)
        address = f" address {mac}" if mac else ""
        return f"name {e.port} mtu {mtu}{address} netns {paths.netns_name(e.node)}"

    return [
        f"link add {end(link.ends[0], link.mtu)} type veth peer {end(link.ends[1], link.mtu)}"
        for link in topology.links
    ]


def node_lines(topology: Topology, node: Node) -> list[str]:
    """Everything inside a node except what Open vSwitch makes."""
    lines = ["link set dev lo up"]
    if node.machine:
        return lines + wire.lines(topology.ports(node.name))
    for bridge in node.bridges:
        if bridge.kind == "linux":
            lines += _linux_bridge(bridge)
    for port in topology.ports(node.name):
        lines.append(f"link set dev {port} up")
        if node.proxy_arp:  # the kernel would wait up to 0.8 s before it answers for others
            lines.append(f"ntable change name arp_cache dev {port} proxy_delay 0")
    return lines


def _linux_bridge(bridge: Bridge) -> list[str]:
    # An explicit MTU keeps the bridge from following its smallest port.
    return [
        f"link add name {bridge.name} address {bridge.mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        f"link set dev {bridge.name} mtu {bridge.mtu} up",
        *(f"link set dev {port} master {bridge.name}" for port in bridge.ports),
    ]


def address_lines(node: Node) -> list[str]:
    """Addresses and default routes; for after every bridge exists. A machine has its own inside."""
    if node.machine:
        return []
    lines = [f"link set dev {name} up" for name in node.addresses]
    for port, addresses in node.addresses.items():
        for address in addresses:
            nodad = " nodad" if ip_interface(address).version == 6 else ""
            lines.append(f"addr add {address} dev {port}{nodad}")
    lines += [
        f"route add default via {gateway}" for gateway in node.gateways if ip_address(gateway).version == 4
    ]
    return lines


def address_lines_v6(node: Node) -> list[str]:
    """Default routes of IPv6, which ip(8) wants in a batch of their own."""
    if node.machine:
        return []
    return [
        f"route add default via {gateway}" for gateway in node.gateways if ip_address(gateway).version == 6
    ]


def hosts_file(nodes: Iterable[Node]) -> str:
    """Text of /etc/hosts for every node."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for node in nodes:
        every = [ip_interface(a) for group in node.addresses.values() for a in group]
        # a link-local address is somebody else on every link
        lines += [f"{found.ip} {node.name}" for found in every if not found.is_link_local]
    return "\n".join(lines) + "\n"


def sysctls(node: Node) -> dict[str, str]:
    """Settings below /proc/sys/net, for before any interface exists."""
    settings: dict[str, str] = {}
    for scope in ("all", "default"):
        settings |= {
            f"ipv6/conf/{scope}/accept_dad": "0",
            f"ipv6/conf/{scope}/dad_transmits": "0",
            f"ipv6/conf/{scope}/accept_ra": "0",
            f"ipv4/conf/{scope}/rp_filter": "0",
        }
    if node.kind == "switch" or node.machine:
        settings["ipv6/conf/default/disable_ipv6"] = "1"
    if node.kind == "router":
        settings |= {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
        settings |= {f"ipv4/conf/{scope}/send_redirects": "0" for scope in ("all", "default")}
    if node.own_vswitches:
        # Userspace Open vSwitch gets copies of what arrives on its ports; the kernel must not answer there for the bridge's address
        settings |= {f"ipv4/conf/{scope}/arp_ignore": "1" for scope in ("all", "default")}
    if node.proxy_arp:
        settings["ipv4/conf/default/proxy_arp"] = "1"
    return settings
