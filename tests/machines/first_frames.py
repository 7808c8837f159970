"""Inside a machine: what waited at a tap is let go through an Open vSwitch in the kernel that has no flow for it. Prints JSON.

Not a test: test_upcall_order.py gives it to the Python there that has vmnet.
"""

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import time

from dom0.dataplane.gate_memory import Bounds
from dom0.dataplane.outgoing import OutgoingGate
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.upcall_order import Leaving, UpcallOrder

GUEST = bytes.fromhex("52540000aa01")
TYPE = 0x88B6
BRIDGE, TAP, PORT, FAR = "brfirst", "tapfirst", "vfirst0", "vfirst1"
FRAMES, ROUNDS = 300, 20
_TUNSETIFF, _TAP_NO_PI = 0x400454CA, 0x1002
_SO_RCVBUFFORCE = 33


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=30, stdout=subprocess.DEVNULL)


def make_tap() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", TAP.encode(), _TAP_NO_PI))
    return fd


def listen() -> socket.socket:
    heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(TYPE))
    heard.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
    heard.bind((FAR, TYPE))
    return heard


def numbers(heard: socket.socket) -> list[int]:
    """Of all frames, or of those that have come when none has for a second."""
    found: list[int] = []
    while len(found) < FRAMES and select.select([heard], [], [], 1)[0]:
        found.append(struct.unpack_from("!I", heard.recv(64), 14)[0])
    return found


def overtaken(order: list[int]) -> int:
    """Frames that came behind a later one."""
    late, highest = 0, -1
    for number in order:
        late += number < highest
        highest = max(highest, number)
    return late


def one_round(tap: int, heard: socket.socket, ours: bool) -> dict[str, float]:
    settings = PortSettings(GUEST, 4242, "192.0.2.1", "192.0.2.2", Bounds(FRAMES * 2, 1 << 24), 1 << 20)
    gate = OutgoingGate(TAP, settings)
    to = bytes([0x52]) + os.urandom(5)
    gate.hold()
    for number in range(FRAMES):
        os.write(tap, (to + GUEST + struct.pack("!HI", TYPE, number)).ljust(60, b"\0"))
    order = UpcallOrder(gate, Leaving(GUEST, gate.devices, [PORT])) if ours else None
    begin = time.monotonic()
    lost, _ = gate.release(order)
    took_ms = (time.monotonic() - begin) * 1000
    came = numbers(heard)
    known_late = order is not None and order.overtaken()
    if order is not None:
        order.close()
    gate.close()
    return {
        "lost": lost + FRAMES - len(came),
        "overtaken": overtaken(came),
        "took_ms": took_ms,
        "known_late": known_late,
    }


def main() -> None:
    tap = make_tap()
    run("ip", "link", "add", PORT, "type", "veth", "peer", "name", FAR)
    try:
        run("ovs-vsctl", "add-br", BRIDGE, "--", "add-port", BRIDGE, TAP, "--", "add-port", BRIDGE, PORT)
        for name in (TAP, PORT, FAR):
            run("ip", "link", "set", name, "up")
        heard = listen()
        one_round(tap, heard, False)  # the bridge's first ports are there
        rounds = [(ours, one_round(tap, heard, ours)) for _ in range(ROUNDS) for ours in (True, False)]
        print(json.dumps({str(ours): [one for by, one in rounds if by is ours] for ours in (True, False)}))
    finally:
        run("ovs-vsctl", "--if-exists", "del-br", BRIDGE)
        run("ip", "link", "del", PORT)


main()
