"""A guest stands still for long: a neighbour's real kernel gives it up, and drops what is for it, unless it is answered."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from dataplane_kit import GUEST, Host, ask_neighbours_soon, ip, isolated, veth
from dataplane_pair import Pair

from dom0.dataplane.announce import announcements

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
ADDRESSES = {4: ("192.0.2.50", "192.0.2.100/24"), 6: ("2001:db8::50", "2001:db8::100/64")}
LAST_S, PAUSE_S = 2.0, 0.01


def station(pair: Pair, version: int) -> Host:
    """A neighbour of the guest's that knows it, and soon wants to know whether it is still there."""
    made = Host()
    veth(pair.fabric, "station", made, "eth0")
    guest, own = ADDRESSES[version]
    with pair.fabric:
        ip("link", "set", "station", "master", "fabric")
    with made:
        Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("0")
        ip("address", "add", own, "dev", "eth0", *(["nodad"] if version == 6 else []))
        ask_neighbours_soon("eth0", version)
        ip("neighbour", "replace", guest, "lladdr", GUEST.hex(":"), "nud", "reachable", "dev", "eth0")
    return made


def sent_and_held(version: int, answers: bool) -> tuple[int, int]:
    """Packets of the neighbour's program, and those that came to the guest's port; its gate holds, and diverts from half time on."""
    pair = Pair()
    pair.attach()
    with pair.b.host:
        pair.destination.expect()
    guest, _ = ADDRESSES[version]
    neighbour = station(pair, version)
    for one in announcements(GUEST, [ip_address(guest)]):
        pair.a.tap.write(one)
    pair.precopy(0.05)
    with pair.a.host:
        pair.source.hold()
    sent, begin, released = 0, time.monotonic(), False
    with (
        neighbour,
        closing(
            socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        ) as program,
    ):
        while time.monotonic() - begin < LAST_S:
            with suppress(OSError):  # the kernel says by itself, sometimes, that it has given up
                program.sendto(b"x", (guest, 9))
            sent += 1
            if not released and time.monotonic() - begin > LAST_S / 2:
                with pair.a.host:
                    pair.source.release(time.time_ns())
                released = True
            if answers:
                with pair.a.host:
                    pair.source.answer_neighbours()
            time.sleep(PAUSE_S)
    with pair.a.host:
        came = pair.source.followed_count()
    pair.close()
    return sent, came


@pytest.mark.parametrize("version", [4, 6])
@isolated(60)
def test_with_answers_nothing_is_dropped_there(version: int) -> None:
    sent, came = sent_and_held(version, answers=True)
    assert came >= sent, "the neighbour's own questions came as well"


@isolated(60)
def test_without_it_gives_up() -> None:
    sent, came = sent_and_held(4, answers=False)
    assert came < sent / 2
