"""The host begins to forward in its router VM's stead while the VM still has packets in its hands."""

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from dataplane_kit import Tap, Traffic, ip, isolated, until
from router_host import LEFT, RIGHT, SERVER, Lab
from scapy.all import ARP, Ether

from dom0.dataplane import netdev
from dom0.dataplane.gate_program import Mode, Word
from dom0.router.acquaint import acquaint
from dom0.router.takeover import Side, take_over
from vmnet.probe import mmsg

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
RATE = 2000
ARP_TYPE = b"\x08\x06"


class SlowVm:
    """Forwards what comes in at its left interface as a VM does: one after the other, each some milliseconds late."""

    def __init__(self, left: Tap, right: Tap, late_s: float, answers: bool) -> None:
        self.forwarded = 0
        self._left, self._right, self._late_s, self._answers = left, right, late_s, answers
        self._waiting: list[tuple[float, bytes]] = []
        self._going = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        waiter = select.poll()
        waiter.register(self._left.fd, select.POLLIN)
        while self._going:
            waiter.poll(1)
            now = time.monotonic()
            self._waiting += [(now + self._late_s, one) for one in self._left.drain()]
            while self._waiting and self._waiting[0][0] <= now:
                self._work_off(self._waiting.pop(0)[1])

    def _work_off(self, frame: bytes) -> None:
        if frame[12:14] == ARP_TYPE:
            asked = Ether(frame)[ARP]
            if self._answers and asked.op == 1 and asked.pdst == "10.1.0.1":
                reply = ARP(op=2, hwsrc=LEFT, psrc=asked.pdst, hwdst=asked.hwsrc, pdst=asked.psrc)
                self._left.write(bytes(Ether(src=LEFT, dst=asked.hwsrc) / reply))
        elif frame[12:14] == b"\x08\x00":
            self.forwarded += 1
            self._right.write(bytes.fromhex(SERVER.replace(":", "")) + RIGHT + frame[12:])

    def stop(self) -> None:
        self._going = False
        self._thread.join()


@contextmanager
def numbered(lab: Lab) -> Iterator[tuple[Traffic, socket.socket]]:
    """UDP packets from the client to the server, numbered."""
    with lab.server:
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mmsg.big_buffers(sink, 8 << 20)
        sink.bind(("10.2.0.100", 5000))
        sink.settimeout(3)
    with lab.client:
        ip("neigh", "replace", "10.1.0.1", "lladdr", LEFT.hex(":"), "dev", "eth0")
        source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        source.connect(("10.2.0.100", 5000))
    with sink, source:
        yield Traffic(source.send, RATE, lambda number: [number.to_bytes(4, "big")]), sink


def order_at_the_server(answers: bool) -> tuple[bool, list[int], int, Lab]:
    """What was said of the order, the numbers that came, and how many were sent."""
    lab = Lab()
    lab.plane.set_mode(Mode.SLOW)
    vm = SlowVm(lab.taps[LEFT], lab.taps[RIGHT], 0.008, answers)
    with numbered(lab) as (traffic, sink):
        until(lambda: vm.forwarded > RATE // 10, 10, "the VM to forward")
        assert acquaint("vmnet-vr1", list(lab.plane.ports.values())) == []
        asked = {LEFT: IPv4Address("10.1.0.1"), RIGHT: None}
        ordered = take_over([Side(lab.plane.ports[mac], address) for mac, address in asked.items()], 4000)
        through_vm = vm.forwarded
        here = lab.plane.ports[LEFT]
        until(lambda: here.get(Word.PASSED) > RATE // 10, 10, "the host to forward")
        sent = traffic.stop()
        found = [int.from_bytes(sink.recv(100), "big") for _ in range(sent)]
    vm.stop()
    assert vm.forwarded - through_vm < RATE // 50, "the VM forwards nothing that came later"
    return ordered, found, sent, lab


@isolated()
def test_what_the_vm_has_in_its_hands_goes_out_before_what_waited() -> None:
    ordered, found, sent, lab = order_at_the_server(answers=True)
    overtaken = [(before, after) for before, after in pairwise(found) if after != before + 1]
    assert (ordered, overtaken, len(found)) == (True, [], sent), f"{overtaken}"
    assert all(
        port.mode is Mode.PASS and port.get(Word.PARK_IFINDEX) == 0 for port in lab.plane.ports.values()
    )
    assert not [one for one in netdev.all_names() if one.startswith("vmp")]


@isolated()
def test_a_vm_that_does_not_answer_is_not_waited_for_without_end() -> None:
    began = time.monotonic()
    ordered, found, sent, _lab = order_at_the_server(answers=False)
    assert not ordered
    assert sorted(found) == list(range(sent))
    assert time.monotonic() - began < 30


@isolated()
def test_without_room_to_wait_in_nothing_has_changed() -> None:
    lab = Lab()
    lab.plane.set_mode(Mode.SLOW)
    assert os.system("mount --bind /dev/null /dev/net/tun") == 0
    with pytest.raises(OSError):
        take_over([Side(port, None) for port in lab.plane.ports.values()], 1000)
    assert {port.mode for port in lab.plane.ports.values()} == {Mode.SLOW}
