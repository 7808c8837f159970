"""A neighbour that does not answer: the kernel gives up, and tells of it; and tells when it answers again."""

from __future__ import annotations

import socket
import time
from contextlib import closing, suppress

import pytest
from dataplane_kit import Host, ask_neighbours_soon, ip, isolated, until, veth

from vmnet.probe.neighbour_watch import NeighbourWatch

pytestmark = pytest.mark.root


@isolated(60)
def test_given_up_and_found_again() -> None:
    here, there = Host(), Host()
    veth(here, "eth0", there, "eth1")
    with there:
        ip("address", "add", "10.0.0.10/24", "dev", "eth1")
    with here, closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        ip("address", "add", "10.0.0.100/24", "dev", "eth0")
        ask_neighbours_soon("eth0")

        def periods() -> list[tuple[int, int]]:
            with suppress(OSError):  # the kernel says so itself, sometimes
                sender.sendto(b"x", ("10.0.0.10", 9))
            return watch.periods(time.time_ns())

        with closing(NeighbourWatch("10.0.0.10")) as watch:
            assert periods() == []
            with there:
                ip("link", "set", "eth1", "arp", "off")
            ip("neighbour", "flush", "dev", "eth0")
            until(lambda: bool(periods()), 20, "the neighbour to be given up")
            with there:
                ip("link", "set", "eth1", "arp", "on")
            until(
                lambda: periods()[-1][1] < time.time_ns() - 200_000_000, 20, "the neighbour to be found again"
            )
