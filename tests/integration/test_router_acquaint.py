"""Before a host forwards for a VM, its namespace has asked for those to whom the VM sends."""

import os
import socket

import pytest
from dataplane_kit import Traffic, ip, isolated
from router_host import LEFT, RIGHT, SERVER, Lab

from dom0.dataplane.gate_program import Mode
from dom0.fib import dump, neighbour
from dom0.fib.message import GETNEIGH
from dom0.fib.neighbour import Neighbour
from dom0.router.acquaint import acquaint, destination

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"


def packet(to: str, mac: bytes = bytes.fromhex(SERVER.replace(":", "")), source: bytes = RIGHT) -> bytes:
    """What the VM sends to ``to``: headers as far as they are read."""
    if ":" in to:
        return mac + source + IPV6 + bytes(24) + socket.inet_pton(socket.AF_INET6, to) + bytes(20)
    return mac + source + IPV4 + b"\x45" + bytes(15) + socket.inet_aton(to) + bytes(26)


def known() -> set[Neighbour]:
    pieces = dump.pieces("vmnet-vr1", GETNEIGH, 0)
    return {found for piece in pieces for one in piece if (found := neighbour.known(one)) is not None}


@isolated()
def test_those_to_whom_the_vm_sends_are_known_and_who_does_not_answer_is_told() -> None:
    lab = Lab()
    lab.plane.set_mode(Mode.SLOW)
    ip("-n", "vmnet-vr1", "route", "add", "198.51.100.0/24", "via", "10.1.0.100")
    ip("-n", "vmnet-vr1", "-6", "route", "add", "2001:db8:1::/64", "via", "fd01::77")
    ip("-n", "vmnet-vr1", "route", "add", "blackhole", "203.0.113.0/24")
    server, client4, client6 = (
        Neighbour(3, socket.inet_aton("10.2.0.100")),
        Neighbour(2, socket.inet_aton("10.1.0.100")),
        Neighbour(2, socket.inet_pton(socket.AF_INET6, "fd01::100")),
    )
    nobody = {
        Neighbour(3, socket.inet_aton("10.2.0.50")),
        Neighbour(2, socket.inet_pton(socket.AF_INET6, "fd01::77")),
    }
    sends = (
        *("10.2.0.100", "10.2.0.50", "198.51.100.9", "198.51.100.10", "203.0.113.1", "192.0.2.1"),
        *("fd01::100", "2001:db8:1::5", "2001:db8:9::1"),
    )
    frames = [packet(one) for one in sends] + [b"\xff" * 14, b"\x02" + bytes(13), RIGHT]
    assert not known() & {server, client4, client6}
    left, right = lab.taps[LEFT], lab.taps[RIGHT]
    own = [one[:6] + LEFT + one[12:] for one in frames]

    def send(_number: bytes) -> None:
        for one in frames[:-1]:
            right.write(one)
        for one in own[:-1]:
            left.write(one)

    traffic = Traffic(send, 50)
    assert set(acquaint("vmnet-vr1", list(lab.plane.ports.values()))) == nobody
    traffic.stop()
    assert known() >= {server, client4, client6}
    assert not known() & nobody
    assert acquaint("vmnet-vr1", []) == []


def test_only_packets_to_one_station_have_a_destination() -> None:
    assert destination(packet("192.0.2.1")) == socket.inet_aton("192.0.2.1")
    assert destination(packet("2001:db8::1")) == socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    assert destination(packet("192.0.2.1", mac=b"\xff" * 6)) is None
    for whole in (packet("192.0.2.1")[:34], packet("2001:db8::1")[:54]):
        assert destination(whole) is not None
        assert [destination(whole[:size]) for size in range(len(whole))] == [None] * len(whole)
    assert destination(packet("192.0.2.1")[:12] + b"\x81\x00" + bytes(60)) is None
