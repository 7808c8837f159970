"""Two paths from a client to a server that the kernel forwards: ``ours``, a router's data plane, and ``plain``, without programs.

``python -m vmnet.bench.forward_kernel`` in network and mount namespaces of its own (``ARGV``) reads questions, one JSON object a
line, ``{"path": "ours", "address": "10.2.0.100", "size": 64, "seconds": 1}``, and prints answers. Ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from ipaddress import ip_address
from socket import socket
from typing import Final

from dom0.dataplane import classifier
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate_memory import Bounds
from dom0.dataplane.gate_program import Mode
from dom0.router import namespace
from dom0.router.dataplane import DataPlane, Layout
from dom0.router.namespace import RouterInterface
from vmnet.bench.fib_stage import Namespace
from vmnet.bench.saturation import Blaster, Inside, prefer_us

ARGV: Final = (
    *("unshare", "--mount", "--net", "--propagation", "private", "--", "sh", "-c"),
    # /sys shows its own namespace's interfaces only when mounted anew
    'mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && mount -t sysfs sysfs /sys && exec "$0" -m vmnet.bench.forward_kernel',
    sys.executable,
)
_SPACE: Final = "vmnet-bench"
_MACS: Final = (bytes.fromhex("525400000a01"), bytes.fromhex("525400000a02"))
_NAMES: Final = ("left", "right")
_OWN: Final = ("10.1.0.1/24", "fd01::1/64"), ("10.2.0.1/24", "fd02::1/64")
_ENDS: Final = ("10.1.0.100/24", "fd01::100/64"), ("10.2.0.100/24", "fd02::100/64")
_BOUNDS: Final = Bounds(1000, 1 << 20)


class Kernel:
    """Our process's namespace is the host: two bridges, a client on one, a server on the other, a router between them."""

    def __init__(self) -> None:
        prefer_us()
        self.client, self.server = Namespace(), Namespace()
        here = Here()
        here.ip("link", "set", "lo", "up")
        for name, end, addresses, own in zip(_NAMES, (self.client, self.server), _ENDS, _OWN, strict=True):
            here.bridge(name, end)
            _neighbour(end, addresses, own)
        data = {mac: RouterInterface(2 + n, f"eth{n}", mac, 1500, f"port{n}") for n, mac in enumerate(_MACS)}
        self._layout = Layout(_SPACE, data, None, "")
        self._plane = self._made()
        for number, (mac, name) in enumerate(zip(_MACS, _NAMES, strict=True)):
            for address in _OWN[number]:
                namespace.add_address(_SPACE, 2 + number, address)
            here.ip("link", "set", self._plane.ports[mac].name, "master", name)
        self.path = "ours"

    def _made(self) -> DataPlane:
        plane = DataPlane(self._layout, [], _BOUNDS)
        plane.make(Mode.PASS, talk=True)
        plane.set_addresses(ip_address(one.partition("/")[0]) for group in _OWN for one in group)
        return plane

    def take(self, path: str) -> None:
        """``ours`` or ``plain``: with our programs or without."""
        if path == self.path:
            return
        if path == "ours":
            self._plane = self._made()
        else:
            self._strip()
        self.path = path

    def _strip(self) -> None:
        """The ports without programs; forwarding stays."""
        for port in self._plane.ports.values():
            for direction in Direction:
                classifier.detach(port.name, direction)
        self._plane.close()

    def _counted(self) -> int:
        """By our programs, as data."""
        return sum(port.counts().passed for port in self._plane.ports.values()) if self.path == "ours" else 0

    def blast(self, address: str, packet_bytes: int, seconds: float) -> dict[str, float]:
        """``counted``: packets that our programs saw on the way, which shows that the path is what it is called."""
        with Blaster(_inside(self.client), _inside(self.server), address, packet_bytes) as blaster:
            blaster.first()
            before = self._counted()
            found = asdict(blaster.run(seconds))
            return {**found, "counted": self._counted() - before}


class Here(Namespace):
    """The namespace we are in."""

    def __init__(self) -> None:
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._before = []

    def bridge(self, name: str, end: Namespace) -> None:
        """With a link to ``eth0`` of ``end``."""
        self.ip("link", "add", name, "type", "bridge", "stp_state", 0, "mcast_snooping", 0)
        self.ip("link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", end.path)
        self.ip("link", "set", f"to-{name}", "master", name)
        for device in (name, f"to-{name}"):
            self.sysctl(f"ipv6.conf.{device}.disable_ipv6", "1")
            self.ip("link", "set", device, "up")


def _neighbour(end: Namespace, addresses: tuple[str, ...], gateways: tuple[str, ...]) -> None:
    end.ip("link", "set", "eth0", "up")
    for address in addresses:
        end.ip("addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    for gateway in gateways:
        own = gateway.partition("/")[0]
        end.ip("-6" if ":" in own else "-4", "route", "add", "default", "via", own)


def _inside(end: Namespace) -> Inside:
    def call(make: Callable[[], socket]) -> socket:
        with end:
            return make()

    return call


def main() -> None:
    # all of it is in namespaces of ours alone, which end with us
    kernel = Kernel()
    print(json.dumps({"event": "ready"}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        kernel.take(question["path"])
        found = kernel.blast(question["address"], question["size"], question["seconds"])
        print(json.dumps({"event": "result", "path": kernel.path, **found}), flush=True)


if __name__ == "__main__":
    main()
