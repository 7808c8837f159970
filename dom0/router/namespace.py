"""A router's namespace: the interfaces of its VM once more, with the same indexes, where the kernel forwards for it.

Same ifindex, same MAC, same addresses: what the VM's routing daemon says of its interfaces holds here word for word.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path

from dom0.dataplane import netdev, netns, rtnetlink
from dom0.dataplane.names import port_mac

_NEW_LINK, _DELETE_LINK = 16, 17
_IFLA_ADDRESS, _IFLA_NAME, _IFLA_MTU, _IFLA_INFO, _IFLA_NAMESPACE_FD = 1, 3, 4, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_NEW_ADDRESS, _IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 20, 1, 2, 0x02
_NEVER_MS = str(2**31 - 1)
_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # The VM's own settings decide what it does as a host; here nothing is to be learnt, asked for or refused
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/dad_transmits": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    # the VM tells the LAN which groups it listens to (RFC 3810); the kernel would say so once more some time in the second after an
    # address came, perhaps when this host may already speak and the other one still forwards: the bridges would believe it
    "net/ipv6/conf/default/mldv1_unsolicited_report_interval": _NEVER_MS,
    "net/ipv6/conf/default/mldv2_unsolicited_report_interval": _NEVER_MS,
    # routes and their next hops are the VM's to remove, not this namespace's when a link blinks
    "net/ipv4/conf/default/ignore_routes_with_linkdown": "0",
    "net/ipv6/conf/all/keep_addr_on_down": "1",
    "net/ipv6/conf/default/keep_addr_on_down": "1",
}


@dataclass(frozen=True)
class RouterInterface:
    """One interface of the router: ``index`` and ``name`` as in its VM; ``port``: our device on the host's side."""

    index: int
    name: str
    mac: bytes
    mtu: int
    port: str


def make(name: str) -> None:
    """The namespace, with forwarding on. OSError if the kernel refuses. Nothing changes if it is there."""
    netns.create(name)
    netns.call(name, _prepare)


def _prepare() -> None:
    for setting, value in _SETTINGS.items():
        path = Path("/proc/sys") / setting
        if path.exists():
            path.write_text(value)
    netdev.set_up("lo")


def add_interface(name: str, interface: RouterInterface) -> None:
    """A veth: one end on the host, the other in the namespace with the VM's index and MAC. Both down; OSError if refused."""
    there = os.open(netns.FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        peer = rtnetlink.link_message(interface.index) + b"".join(
            (
                rtnetlink.text(_IFLA_NAME, interface.name),
                rtnetlink.attribute(_IFLA_ADDRESS, interface.mac),
                rtnetlink.u32(_IFLA_MTU, interface.mtu),
                rtnetlink.u32(_IFLA_NAMESPACE_FD, there),
            )
        )
        body = rtnetlink.link_message() + b"".join(
            (
                rtnetlink.text(_IFLA_NAME, interface.port),
                rtnetlink.attribute(_IFLA_ADDRESS, port_mac()),
                rtnetlink.u32(_IFLA_MTU, interface.mtu),
                rtnetlink.nested(
                    _IFLA_INFO,
                    rtnetlink.text(_INFO_KIND, "veth"),
                    rtnetlink.nested(_INFO_DATA, rtnetlink.attribute(_VETH_PEER, peer)),
                ),
            )
        )
        rtnetlink.request(_NEW_LINK, rtnetlink.CREATE | rtnetlink.EXCLUSIVE, body)
    finally:
        os.close(there)


def bring_up(name: str, interface: RouterInterface) -> None:
    """Both ends. The host's end has no addresses of its own, so that nothing but the router speaks there."""
    netdev.bring_up(interface.port)
    netns.call(name, lambda: netdev.set_up(interface.name))


def set_state(name: str, interface: str, up: bool, mtu: int) -> bool:
    """As the VM has its interface now. Whether that changed anything."""

    def change() -> bool:
        before = netdev.get_mtu(interface), netdev.is_up(interface)
        if before == (mtu, up):
            return False
        netdev.set_mtu(interface, mtu)
        if up:
            netdev.set_up(interface)
        else:
            netdev.set_down(interface)
        return True

    return netns.call(name, change)


def interfaces(name: str) -> dict[str, int]:
    """Name -> index of what is in the namespace."""

    def look() -> dict[str, int]:
        return {one: netdev.index_of(one) for one in netdev.all_names()}

    return netns.call(name, look)


def delete_port(port: str) -> None:
    """Both ends of the veth. Nothing happens if it has gone."""
    if netdev.exists(port):
        rtnetlink.request(_DELETE_LINK, 0, rtnetlink.link_message(netdev.index_of(port)))


def add_address(name: str, index: int, address: str) -> None:
    """``address`` with its prefix length; nothing happens if it is there. OSError if the kernel refuses."""
    interface = ip_interface(address)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    flags = 0 if interface.version == 4 else _IFA_F_NODAD
    body = struct.pack("=BBBBI", family, interface.network.prefixlen, flags, 0, index)
    for kind in (_IFA_ADDRESS, _IFA_LOCAL):
        body += rtnetlink.attribute(kind, interface.packed)
    netns.call(name, lambda: rtnetlink.request(_NEW_ADDRESS, rtnetlink.CREATE | rtnetlink.REPLACE, body))
