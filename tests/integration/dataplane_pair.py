"""Two hosts, a switch with a client, and the two ports between which a guest goes."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address

from dataplane_kit import GUEST, Guest, Host, Tap, bridge, ip, until, veth

from dom0.dataplane.announce import announcements
from dom0.dataplane.destination_port import DestinationPort, Opened
from dom0.dataplane.gate import Bounds
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.source_port import SourcePort

BOUNDS = Bounds(100_000, 1 << 28)
VNI = 7
ENDS = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}


class Side:
    """A host with a bridge, an uplink to the switch, a link to the other host, and a tap for the guest."""

    def __init__(self, fabric: Host, uplink: str, recorder_bytes: int) -> None:
        self.host, self.recorder_bytes = Host(), recorder_bytes
        self.before: set[str] = set()
        veth(self.host, "uplink", fabric, uplink)

    def finish(self, offload: bool, multi_queue: bool) -> None:
        with self.host:
            self.tap = Tap("tap0", offload=offload, multi_queue=multi_queue)
            bridge("br0", "uplink", "tap0")
        self.before = self.host.devices()

    def settings(self, local: str, remote: str, bounds: Bounds) -> PortSettings:
        return PortSettings(GUEST, VNI, local, remote, bounds, self.recorder_bytes)


class Pair:
    """Two sides and a client at the switch. The guest runs on the source and has been heard there."""

    def __init__(
        self,
        version: int = 4,
        stretched: bool = False,
        bounds: Bounds = BOUNDS,
        offload: bool = False,
        recorder_bytes: int = 8 << 20,
        multi_queue: bool = False,
    ) -> None:
        self.fabric = Host()
        self.a, self.b = (Side(self.fabric, uplink, recorder_bytes) for uplink in ("left", "right"))
        veth(self.a.host, "under", self.b.host, "under")
        ends = ENDS[version]
        for side, address in zip((self.a, self.b), ends, strict=True):
            with side.host:
                with open("/proc/sys/net/ipv6/conf/under/disable_ipv6", "w") as file:  # noqa: PTH123
                    file.write("0")
                ip("link", "set", "under", "mtu", 1600)
                ip(
                    "addr",
                    "add",
                    f"{address}/{24 if version == 4 else 64}",
                    "dev",
                    "under",
                    *(["nodad"] * (version == 6)),
                )
            side.finish(offload, multi_queue)
        with self.fabric:
            self.client = Tap("client", 100_000)
            bridge("fabric", "client", "left", *([] if stretched else ["right"]))
        self.stretched = stretched
        self.settings_a = self.a.settings(*ends, bounds)
        self.settings_b = self.b.settings(*ends[::-1], bounds)

    def attach(self, announce: bool = True) -> None:
        if announce:
            self.speak(self.a.tap)
        with self.a.host:
            self.source = SourcePort("tap0", self.settings_a)
            self.source.make_room()
            self.source.connect(self.settings_a.local, self.settings_a.remote)
        with self.b.host:
            self.destination = DestinationPort(self.settings_b, self.stretched)
            self.destination.attach("tap0")
            self.destination.make_room()

    def hold_own(self, switch_ports: Collection[str] | None = None) -> None:
        """The guest runs at the destination, and what it sends is held there; ``switch_ports``: in the order of upcalls."""
        self.attach()
        with self.b.host:
            self.destination.curb()
            if switch_ports is not None:
                self.destination.keep_upcall_order(switch_ports)
            self.destination.hold_outgoing()
            self.destination.expect()
            self.destination.resumed()
        self.client.drain()

    def speak(self, tap: Tap) -> None:
        for one in announcements(GUEST, [ip_address("192.0.2.50")]):
            tap.write(one)

    def precopy(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.source.turn(True)
            time.sleep(0.005)

    def arrive(self) -> Guest:
        """The guest resumes at the destination: it reads its tap, and says where it is."""
        with self.b.host:
            guest = Guest(self.b.tap)
            self.destination.resumed()
            if not self.stretched:
                self.announce_until_marked()
        return guest

    def announce_until_marked(self) -> None:
        self.destination.announce(announcements(GUEST, []))
        until(self.destination.marker.drain, 2, "the announcement came back")

    def open(self) -> Opened:
        with self.b.host:
            return self.destination.open()

    def across(self) -> tuple[int, int]:
        """Frames sent into the tunnel at the source, and received from it at the destination, once they are as many."""
        with suppress(AssertionError):
            until(lambda: self.source.tunnel_sent == self.destination.tunnel_received, 0.5, "all came")
        return self.source.tunnel_sent, self.destination.tunnel_received

    def close(self, keep: bool = False) -> None:
        with self.a.host:
            self.source.close(keep)
        with self.b.host:
            self.destination.close(keep)
