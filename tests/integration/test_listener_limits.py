"""A guest that floods what is listened to costs a turn no more than its share; nothing that fits is lost by it."""

from __future__ import annotations

import os
from ipaddress import IPv4Address

import pytest
from dataplane_kit import GUEST, Host, Tap, isolated

from dom0.dataplane.addresses import AddressWatch
from dom0.dataplane.announce import gratuitous_arp

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@isolated()
def test_addresses_are_read_sixty_four_frames_a_turn() -> None:
    with Host():
        tap = Tap("tap0")
        watch = AddressWatch("tap0", GUEST)
        for number in range(100):
            tap.write(gratuitous_arp(GUEST, IPv4Address(f"192.0.2.{1 + number // 10}")))
        watch.turn()
        assert len(watch.found) == 7, "64 frames, ten an address"
        watch.turn()
        assert len(watch.found) == 10
        watch.close()
