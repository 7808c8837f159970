"""What a kernel does with a frame that sets up flows: a host does not take it, a router does not forward it, both are silent."""

import socket
import struct
import subprocess
from collections.abc import Callable

import pytest
from dataplane_kit import GUEST, Host, ip, isolated, veth

from dom0.dataplane.listener import Listener, destination_filter, source_filter
from dom0.dataplane.park import NO_OFFLOAD
from dom0.dataplane.sender import Sender
from vmnet.internet_checksum import checksum
from vmnet.undeliverable import frame_like, reply_like

pytestmark = pytest.mark.root
BRIDGE = bytes.fromhex("02766d000001")
PORT = 7007
FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
HERE = {socket.AF_INET: ("192.0.2.1", "192.0.2.2"), socket.AF_INET6: ("2001:db8::1", "2001:db8::2")}
BEHIND = {socket.AF_INET: "198.51.100.9", socket.AF_INET6: "2001:db8:1::9"}


def _asked(family: socket.AddressFamily, station: bytes, by: str) -> bytes:
    """The header of a UDP packet from ``by``, behind MAC address ``station``, to the guest."""
    guest, sender = socket.inet_pton(family, HERE[family][0]), socket.inet_pton(family, by)
    ports = struct.pack("!HHHH", PORT, PORT, 8, 0)
    if family == socket.AF_INET:
        packet = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + sender + guest + ports
        return GUEST + station + b"\x08\x00" + packet
    return GUEST + station + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, 8, 17, 64) + sender + guest + ports


def _mac(device: str) -> bytes:
    with open(f"/sys/class/net/{device}/address") as file:  # noqa: PTH123
        return bytes.fromhex(file.read().strip().replace(":", ""))


def _repaired(family: socket.AddressFamily, frame: bytes) -> bytes:
    """As if it were to be taken: the control."""
    packet = bytearray(frame[14:])
    if family == socket.AF_INET:
        packet[10:12] = bytes(2)
        struct.pack_into("!H", packet, 10, checksum(bytes(packet[:20])))
    else:
        packet[8:24] = socket.inet_pton(family, HERE[family][0])
    return frame[:14] + packet


@isolated()
def test_a_host_and_a_router_drop_it_silently() -> None:
    for family in HERE:
        for by in (HERE[family][1], BEHIND[family]):
            assert not _heard(family, by, lambda frame: frame), f"something came of a reply to {by}"


@isolated()
def test_a_guest_and_a_router_vm_drop_a_frame_to_them_silently() -> None:
    """The same stations are the guest: the frame is like a packet to their own address, or to one behind them."""
    for family in HERE:
        for by in (HERE[family][1], BEHIND[family]):
            assert not _heard(family, by, lambda frame, family=family: _onward(family, frame)), (
                f"something came of a frame to {by}"
            )


def _onward(family: socket.AddressFamily, frame: bytes) -> bytes:
    """A frame like a packet with the addresses that the reply has."""
    packet = bytearray(frame[14:])
    if family == socket.AF_INET6:
        packet[8:24] = socket.inet_pton(family, HERE[family][0])
    made = frame_like(frame[:14] + bytes(packet), frame[:6], BRIDGE, 0)
    assert made is not None
    return made


@isolated()
def test_a_router_would_complain_if_the_reply_were_whole() -> None:
    for family in HERE:
        assert _heard(family, BEHIND[family], lambda frame, family=family: _repaired(family, frame))


def _heard(family: socket.AddressFamily, by: str, change: Callable[[bytes], bytes]) -> bool:
    """Whether the station says or forwards anything; ``by`` is its own address, or one behind it: then it is a router."""
    here, there = HERE[family]
    a, b, c = Host(), Host(), Host()
    veth(a, "x", b, "y")
    veth(b, "z", c, "behind")
    length = 24 if family == socket.AF_INET else 64
    for host, device, address in ((a, "x", here), (b, "y", there)):
        with host:
            subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=0"], check=True)
            ip("addr", "add", f"{address}/{length}", "dev", device, *(["nodad"] if length == 64 else []))
    with b:
        station = _mac("y")
        subprocess.run(
            ["sysctl", "-qw", "net.ipv6.conf.z.disable_ipv6=0", *(f"{one}=1" for one in FORWARDING)],
            check=True,
        )
        ip("route", "add", BEHIND[family], "dev", "z")
        for address, device in ((here, "y"), (BEHIND[family], "z")):
            ip("neigh", "add", address, "lladdr", GUEST.hex(":"), "dev", device)
        sink = socket.socket(family, socket.SOCK_DGRAM)
        sink.bind(("", PORT))
        sink.settimeout(5)
    with c:
        forwarded = Listener("behind", destination_filter(GUEST))
    with a:
        ip("neigh", "add", there, "lladdr", station.hex(":"), "dev", "x")
        said = Listener("x", source_filter(station))
        sender = Sender("x")
        frame = reply_like(_asked(family, station, by), BRIDGE, 0)
        assert frame is not None
        sender.send(NO_OFFLOAD + change(frame))
        with socket.socket(family, socket.SOCK_DGRAM) as own:
            own.sendto(b"behind it", (there, PORT))
    assert sink.recv(100) == b"behind it", "nothing came before"
    # an interface that has just got IPv6 reports its groups by itself, some time in a second
    heard = [one for one in said.drain() + forwarded.drain() if not one[0] & 1]
    for one in (sink, said, sender, forwarded):
        one.close()
    return bool(heard)
