"""The tunnel between two hosts: one VXLAN device (RFC 7348) a migrating interface.

The outer source port is fixed: one flow, one queue, so what goes in first comes out first, and an end marker means something.
Learning is off and the only destination is the peer. Generic receive offload is off: it keeps frames in queues of its own
(``gro_cells``, net/core/gro_cells.c), where nobody can see that something is still under way (:mod:`dom0.dataplane.backlog`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

from pyroute2 import IPRoute

from dom0.dataplane import netdev, rtnetlink
from dom0.dataplane.names import TUNNEL_MAC
from vmnet import ethtool
from vmnet.ethtool import Offload

_NEW_LINK, _DELETE_LINK = 16, 17
_ADDRESS, _NAME, _LINK_INFO, _INFO_KIND, _INFO_DATA = 1, 3, 18, 1, 2
_ID, _GROUP, _LOCAL, _TTL, _LEARNING, _PORT_RANGE, _PORT, _GROUP6, _LOCAL6 = 1, 2, 4, 5, 7, 10, 15, 16, 17
_HOPS = 64

UDP_PORT = 6643
_SOURCE_PORT = 49643
OUTER_BYTES = 70
"""What VXLAN over IPv6 puts around an Ethernet frame: 40 + 8 + 8 + 14 (over IPv4 20 less)."""


@dataclass(frozen=True)
class Ends:
    """What a tunnel was made with. ``mtu``: bytes, of the guest."""

    vni: int
    local: str
    remote: str
    mtu: int

    def __str__(self) -> str:
        return f"{self.vni} {self.local} {self.remote} {self.mtu}"

    @classmethod
    def parse(cls, text: str) -> Ends:
        """The opposite of ``str()``. ValueError if ``text`` is none."""
        if text.count(" ") != 3:
            raise ValueError(f"'{text}' does not say what the tunnel was made with")
        vni, local, remote, mtu = text.split(" ")
        return cls(int(vni), str(ip_address(local)), str(ip_address(remote)), int(mtu))


def outer_bytes(address: str) -> int:
    """What VXLAN puts around an Ethernet frame on the way to or from ``address``."""
    return OUTER_BYTES if ip_address(address).version == 6 else OUTER_BYTES - 20


def create(name: str, vni: int, local: str, remote: str, mtu: int) -> int:
    """Make the device and bring it up; returns its ifindex. ``mtu``: the guest's, in bytes. OSError if refused."""
    info = rtnetlink.nested(
        _LINK_INFO,
        rtnetlink.text(_INFO_KIND, "vxlan"),
        rtnetlink.nested(_INFO_DATA, *_vxlan(vni, local, remote)),
    )
    address = rtnetlink.attribute(_ADDRESS, TUNNEL_MAC)
    body = rtnetlink.link_message() + rtnetlink.text(_NAME, name) + address + info
    rtnetlink.request(_NEW_LINK, rtnetlink.CREATE | rtnetlink.EXCLUSIVE, body)
    ethtool.turn_off(name, Offload.GRO)
    netdev.bring_up(name, mtu)
    return netdev.index_of(name)


def _vxlan(vni: int, local: str, remote: str) -> list[bytes]:
    here, there = ip_address(local), ip_address(remote)
    six = there.version == 6
    return [
        rtnetlink.u32(_ID, vni),
        rtnetlink.attribute(_GROUP6 if six else _GROUP, there.packed),
        rtnetlink.attribute(_LOCAL6 if six else _LOCAL, here.packed),
        rtnetlink.attribute(_TTL, bytes([_HOPS])),
        rtnetlink.attribute(_LEARNING, b"\0"),
        rtnetlink.attribute(_PORT_RANGE, struct.pack("!HH", _SOURCE_PORT, _SOURCE_PORT + 1)),
        rtnetlink.attribute(_PORT, struct.pack("!H", UDP_PORT)),
    ]


def ends_of(name: str) -> Ends:
    """Of a tunnel that is there. OSError if there is no device of that name, ValueError if it is no tunnel."""
    with IPRoute() as netlink:
        (link,) = netlink.get_links(netdev.index_of(name))
    info = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    if info is None or info.get_attr("IFLA_VXLAN_ID") is None:
        raise ValueError(f"{name} is no tunnel")
    local = info.get_attr("IFLA_VXLAN_LOCAL") or info.get_attr("IFLA_VXLAN_LOCAL6")
    remote = info.get_attr("IFLA_VXLAN_GROUP") or info.get_attr("IFLA_VXLAN_GROUP6")
    return Ends(info.get_attr("IFLA_VXLAN_ID"), local, remote, netdev.get_mtu(name))


def delete(name: str) -> None:
    """Remove a device of ours; nothing happens if it has gone already."""
    if netdev.exists(name):
        rtnetlink.request(_DELETE_LINK, 0, rtnetlink.link_message(netdev.index_of(name)))
