"""A host with a router's data plane, taps instead of its VM, and a client and a server beside it."""

from __future__ import annotations

import os
from ipaddress import ip_address

from dataplane_kit import Host, Tap, bridge, ip, veth
from scapy.all import Ether

from dom0.dataplane.gate_memory import Bounds
from dom0.dataplane.gate_program import Mode
from dom0.router import namespace
from dom0.router.dataplane import DataPlane, Layout
from dom0.router.namespace import RouterInterface
from vmnet.control_rules import parse

LEFT, RIGHT = bytes.fromhex("525400000a01"), bytes.fromhex("525400000a02")
CLIENT, SERVER = "02:00:00:00:01:64", "02:00:00:00:02:64"


class Lab:
    """A host with two bridges and a router; a client on one, a server on the other. Stays in the host's namespace."""

    def __init__(self, rules: tuple[str, ...] = ()) -> None:
        os.system("mount -t tmpfs tmpfs /run/netns")
        self.host, self.client, self.server = Host(), Host(), Host()
        veth(self.host, "up1", self.client, "eth0")
        veth(self.host, "up2", self.server, "eth0")
        for end, mac, net in ((self.client, CLIENT, 1), (self.server, SERVER, 2)):
            with end:
                ip("link", "set", "eth0", "address", mac)
                with open("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "w") as file:  # noqa: PTH123
                    file.write("0")
                ip("addr", "add", f"10.{net}.0.100/24", "dev", "eth0")
                ip("addr", "add", f"fd0{net}::100/64", "dev", "eth0", "nodad")
                ip("route", "add", "default", "via", f"10.{net}.0.1")
                ip("-6", "route", "add", "default", "via", f"fd0{net}::1")
        self.host.__enter__()
        bridge("left", "up1")
        bridge("right", "up2")
        data = {
            LEFT: RouterInterface(2, "eth0", LEFT, 1500, "vmr000000.2"),
            RIGHT: RouterInterface(3, "eth1", RIGHT, 1500, "vmr000000.3"),
        }
        self.plane = DataPlane(
            Layout("vmnet-vr1", data, None, ""), [parse(one) for one in rules], Bounds(1000, 1 << 20)
        )
        self.plane.make(Mode.PASS, talk=True)
        for number, (mac, name) in enumerate(((LEFT, "left"), (RIGHT, "right")), 1):
            namespace.add_address("vmnet-vr1", number + 1, f"10.{number}.0.1/24")
            namespace.add_address("vmnet-vr1", number + 1, f"fd0{number}::1/64")
            ip("link", "set", self.plane.ports[mac].name, "master", name)
        self.taps = {LEFT: Tap("tap1"), RIGHT: Tap("tap2")}
        self.plane.connect({mac: tap.name for mac, tap in self.taps.items()})
        own = ("10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1")
        self.plane.set_addresses(ip_address(one) for one in own)

    def to_vm(self, mac: bytes = LEFT) -> list[Ether]:
        return [Ether(one) for one in self.taps[mac].drain()]
