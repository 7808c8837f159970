"""Two hosts that can carry a router's data plane, a client on its left and a server on its right, numbered traffic both ways."""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import ip_address

from dataplane_kit import Host, Packets, Traffic, bridge, ip, quiet, until, veth

from dom0.dataplane import backlog
from dom0.dataplane.gate_memory import Bounds
from dom0.dataplane.gate_program import Mode
from dom0.dataplane.port_settings import PortSettings
from dom0.router import namespace
from dom0.router.arriving_link import ArrivingLink
from dom0.router.dataplane import DataPlane, Layout
from dom0.router.leaving_link import LeavingLink
from dom0.router.namespace import RouterInterface

LEFT, RIGHT = bytes.fromhex("525400000a01"), bytes.fromhex("525400000a02")
ENDS = {LEFT: bytes.fromhex("020000000164"), RIGHT: bytes.fromhex("020000000264")}
BOUNDS = Bounds(100_000, 1 << 28)
ADDRESSES = {LEFT: [ip_address("10.1.0.1")], RIGHT: [ip_address("10.2.0.1")]}


class RouterHost:
    """``mode`` and ``talk`` as a data plane is made: forwarding, or silent."""

    def __init__(self, name: str, mode: Mode, talk: bool) -> None:
        self.namespace = f"vmnet-{name}"
        data = {
            mac: RouterInterface(index, f"eth{index - 2}", mac, 1500, f"vmr{name}00000.{index}")
            for index, mac in ((2, LEFT), (3, RIGHT))
        }
        self.plane = DataPlane(Layout(self.namespace, data, None, ""), [], BOUNDS)
        self.plane.make(mode, talk)
        for number, (mac, bridge_name) in enumerate(((LEFT, "left"), (RIGHT, "right")), 1):
            namespace.add_address(self.namespace, number + 1, f"10.{number}.0.1/24")
            ip("link", "set", self.plane.ports[mac].name, "master", bridge_name)
            ip(
                *("-n", self.namespace, "neigh", "add", f"10.{number}.0.100", "lladdr", ENDS[mac].hex(":")),
                *("dev", f"eth{number - 1}"),
            )
        self.plane.set_addresses(ip_address(f"10.{number}.0.1") for number in (1, 2))


class RouterPair:
    def __init__(self) -> None:
        os.system("mount -t tmpfs tmpfs /run/netns")
        self.a, self.b, self.fabric = Host(), Host(), Host()
        veth(self.a, "under", self.b, "under")
        for name in ("left", "right"):
            for side, host in (("a", self.a), ("b", self.b)):
                veth(host, f"up-{name}", self.fabric, f"{side}-{name}")
        for number, host in ((1, self.a), (2, self.b)):
            with host:
                ip("link", "set", "under", "mtu", 1600)
                ip("addr", "add", f"192.0.2.{number}/24", "dev", "under")
                bridge("left", "up-left")
                bridge("right", "up-right")
        self.ends = {LEFT: Host(), RIGHT: Host()}
        for mac, name in ((LEFT, "left"), (RIGHT, "right")):
            veth(self.fabric, f"end-{name}", self.ends[mac], "eth0")
            with self.ends[mac]:
                ip("link", "set", "eth0", "address", ENDS[mac].hex(":"))
                quiet("eth0")
        with self.fabric:
            for name in ("left", "right"):
                bridge(name, f"a-{name}", f"b-{name}", f"end-{name}")
        with self.a:
            self.old = RouterHost("a", Mode.PASS, talk=True)
        with self.b:
            self.new = RouterHost("b", Mode.BLOCK, talk=False)
        self._listen()

    def _listen(self) -> None:
        self.heard: dict[bytes, socket.socket] = {}
        for mac, host in self.ends.items():
            with host:
                self.heard[mac] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
                self.heard[mac].setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
                self.heard[mac].bind(("eth0", 0x0800))
                self.heard[mac].setblocking(False)

    def numbers(self, mac: bytes) -> list[int]:
        """Of the packets that the end behind ``mac`` has got from the other, as they came."""
        found = []
        while True:
            try:
                frame = self.heard[mac].recv(2000)
            except BlockingIOError:
                return found
            if frame[:6] == ENDS[mac] and frame[23] == 253:
                found.append(struct.unpack_from("!I", frame, 34)[0])

    def traffic(self, rate: int) -> dict[bytes, Traffic]:
        """Sent from either end to the other, by the MAC of the interface at which they leave the router."""
        running = {}
        for mac, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
            with self.ends[other]:
                wire = Packets("eth0")
            source, target = (f"10.{2 if mac is LEFT else 1}.0.100", f"10.{1 if mac is LEFT else 2}.0.100")
            make = packets(other, ENDS[other], source, target)
            running[mac] = Traffic(wire.send, rate, lambda number, make=make: [make(number)])  # type: ignore[misc]
        return running

    def prepare(self) -> None:
        """Both sides' links, with a tunnel each."""
        self.leaving, self.arriving = [], []
        for vni, mac in ((7, LEFT), (8, RIGHT)):
            with self.a:
                settings = PortSettings(mac, vni, "192.0.2.1", "192.0.2.2", BOUNDS, 1 << 20)
                self.leaving.append(LeavingLink(self.old.plane.ports[mac], settings))
            with self.b:
                settings = PortSettings(mac, vni, "192.0.2.2", "192.0.2.1", BOUNDS, 1 << 20)
                self.arriving.append(ArrivingLink(self.new.plane.ports[mac], settings, False))

    def expect(self) -> None:
        with self.b:
            for link in self.arriving:
                link.expect(list(ADDRESSES[link.settings.mac]))

    def divert(self) -> None:
        with self.a:
            for link in self.leaving:
                link.hold()
            backlog.wait_until_passed()
            for link in self.leaving:
                link.divert()
                link.mute()

    def take(self) -> None:
        """Announced, and opened when the announcement has come by the old path."""
        with self.b:
            for link in self.arriving:
                link.announce()
            for link in self.arriving:
                until(link.marker.drain, 2, "the announcement came back")
            backlog.wait_until_passed()
            for link in self.arriving:
                link.open()

    def go_back(self, pause_s: float = 0.0) -> None:
        """``pause_s``: after each step of each link, as on a host whose processors are busy."""
        with self.a:
            for link in self.leaving:
                link.reconnect()
                settle(pause_s)
            for link in self.leaving:
                link.take_back()
                settle(pause_s)
        with self.b:
            for arrived in self.arriving:
                arrived.go_back()
            backlog.wait_until_passed()
            for arrived in self.arriving:
                arrived.mute()
        with self.a:
            for link in self.leaving:
                link.announce(list(ADDRESSES[link.settings.mac]))

    def close(self) -> None:
        with self.a:
            for link in self.leaving:
                link.close()
        with self.b:
            for link in self.arriving:
                link.close()


def packets(to: bytes, source_mac: bytes, source: str, target: str) -> object:
    """Makes numbered IPv4 packets (protocol 253, for experiments: RFC 3692)."""
    head = to + source_mac + b"\x08\x00"
    fixed = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 46, 0, 0, 64, 253, 0),
        ip_address(source).packed,
        ip_address(target).packed,
    )
    total = sum(struct.unpack("!10H", fixed))
    total = (total & 0xFFFF) + (total >> 16)
    header = fixed[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + fixed[12:]
    return lambda number: head + header + struct.pack("!I", number) + bytes(22)


def settle(seconds: float) -> None:
    """Traffic goes on meanwhile."""
    time.sleep(seconds)
