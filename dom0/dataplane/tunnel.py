"""The tunnel between two hosts: one VXLAN device (RFC 7348) a migrating interface.

The outer source port is fixed: one flow, one queue, so what goes in first comes out first, and an end marker means something.
Learning is off and the only destination is the peer.
"""

from __future__ import annotations

from ipaddress import ip_address

from pyroute2 import IPRoute

from dom0.dataplane import netdev

UDP_PORT = 6643
_SOURCE_PORT = 49643
OUTER_BYTES = 70
"""What VXLAN over IPv6 puts around an Ethernet frame: 40 + 8 + 8 + 14 (over IPv4 20 less)."""


def create(name: str, vni: int, local: str, remote: str, mtu: int) -> int:
    """Make the device and bring it up; returns its ifindex. ``mtu``: the guest's, in bytes. OSError/NetlinkError if refused."""
    six = ip_address(remote).version == 6
    with IPRoute() as netlink:
        netlink.link(
            "add",
            ifname=name,
            kind="vxlan",
            vxlan_id=vni,
            vxlan_port=UDP_PORT,
            vxlan_learning=False,
            vxlan_ttl=64,
            vxlan_port_range={"low": _SOURCE_PORT, "high": _SOURCE_PORT + 1},
            **(
                {"vxlan_local6": local, "vxlan_group6": remote}
                if six
                else {"vxlan_local": local, "vxlan_group": remote}
            ),
        )
    netdev.bring_up(name, mtu)
    return netdev.index_of(name)


def delete(name: str) -> None:
    """Remove a device of ours; nothing happens if it has gone already."""
    if not netdev.exists(name):
        return
    with IPRoute() as netlink:
        netlink.link("del", index=netdev.index_of(name))
