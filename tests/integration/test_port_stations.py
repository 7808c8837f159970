"""Who else is behind a guest's port, as a Linux bridge and Open vSwitch have learned it there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess

import pytest
from dataplane_kit import Host, isolated, until
from ovs_kit import Ovs

from dom0.claim import stations
from dom0.dataplane.announce import nobody, rarp, station_here
from dom0.dataplane.guest_vlans import MOST_VLANS, VlanWatch, tag_filter
from dom0.port_stations import Station, StationWatch, behind, port_of

pytestmark = pytest.mark.root
OWN = bytes.fromhex("525400000001")
OTHERS = [bytes.fromhex(f"0200000000{number:02x}") for number in (7, 8)]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def say(device: str, *macs: bytes, tag: bytes = b"") -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as guest:
        guest.bind((device, 0))
        for mac in macs:
            frame = rarp(mac)
            guest.send(frame[:12] + tag + frame[12:])


@isolated(30)
def test_a_linux_bridge() -> None:
    with Host():
        ip("link", "add", "br0", "type", "bridge")
        for number in (0, 1):
            ip("link", "add", f"port{number}", "type", "veth", "peer", "name", f"guest{number}")
            ip("link", "set", f"port{number}", "master", "br0", "addrgenmode", "none", "up")
            ip("link", "set", f"guest{number}", "addrgenmode", "none", "up")
        ip("link", "set", "br0", "up")
        assert asyncio.run(behind("port0", OWN)) == []
        say("guest0", OWN, *reversed(OTHERS), nobody())
        say("guest1", bytes.fromhex("020000000099"))
        assert asyncio.run(behind("port0", OWN)) == [Station(mac) for mac in OTHERS]


@isolated(60)
def test_open_vswitch() -> None:
    """Its port is in VLAN 7; one station is behind a trunk."""
    ovs = Ovs("s1")
    os.environ["OVS_RUNDIR"] = str(ovs.folder)
    with ovs.host:
        for number in (0, 1):
            ip("link", "add", f"port{number}", "type", "veth", "peer", "name", f"guest{number}")
            for device in (f"port{number}", f"guest{number}"):
                ip("link", "set", device, "addrgenmode", "none", "up")
    ovs.vsctl("set-fail-mode", "s1", "standalone")
    ovs.vsctl("add-port", "s1", "port0", "tag=7", "--", "add-port", "s1", "port1")
    access, trunk = (
        [Station(mac) for mac in OTHERS],
        [Station(OTHERS[0], 9), Station(OTHERS[1]), Station(OWN, 9)],
    )

    def learned() -> bool:
        with ovs.host:
            say("guest0", OWN, *OTHERS)
            say("guest1", OWN, OTHERS[0], tag=bytes.fromhex("81000009"))
            say("guest1", OTHERS[1])
            return [asyncio.run(behind(port, OWN)) for port in ("port0", "port1")] == [access, trunk]

    until(learned, 10, "both ports' stations")


@pytest.mark.parametrize("printed", ["", "s1\n", "s1\n[]\n[]\n", "s1\n3\n[]\nx\n"])
def test_what_is_no_port_is_refused(printed: str) -> None:
    with pytest.raises(ValueError, match="no port"):
        port_of(printed)


def test_what_a_peer_says_of_stations_is_checked() -> None:
    good = ["02:00:00:00:00:07", 9]
    bad: list[object] = [
        *(None, "x", [], ["02:00:00:00:00:07"], ["02:00:00:00:00:07", "9"], ["02:00:00:00:00:07", 4095]),
        *(["03:00:00:00:00:07", 0], ["00:00:00:00:00:00", 0], [OWN.hex(":"), 0], ["02:00:00:00:00:07", -1]),
        ["02:00:00:00:00:07", True],
    ]
    assert stations([*bad, good], OWN) == [(OTHERS[0], 9)]
    assert stations([[OWN.hex(":"), 9]], OWN) == [(OWN, 9)]
    assert stations({"x": 1}, OWN) == [] and len(stations([good] * 100, OWN)) == 64


def test_a_station_in_a_vlan_is_announced_with_its_tag() -> None:
    assert station_here(OTHERS[0], 0) == rarp(OTHERS[0])
    tagged = station_here(OTHERS[0], 9)
    assert (tagged[:12], tagged[12:16], tagged[16:]) == (
        rarp(OTHERS[0])[:12],
        bytes.fromhex("81000009"),
        rarp(OTHERS[0])[12:],
    )


@isolated(30)
def test_the_guests_own_vlans_on_a_bridge_that_does_not_learn_them() -> None:
    """Each once, without what comes from outside or from another MAC address, however much the guest sends."""
    with Host():
        ip("link", "add", "br0", "type", "bridge")
        ip("link", "add", "port0", "type", "veth", "peer", "name", "guest0")
        ip("link", "set", "port0", "master", "br0", "addrgenmode", "none", "up")
        ip("link", "set", "guest0", "addrgenmode", "none", "up")
        ip("link", "set", "br0", "up")
        with contextlib.closing(VlanWatch("port0", OWN)) as watch:
            say("port0", OWN, tag=bytes.fromhex("81000007"))  # to the guest
            say("guest0", OTHERS[0], tag=bytes.fromhex("81000008"))
            say("guest0", OWN)
            say("guest0", *[OWN] * 100, tag=bytes.fromhex("8100e009"))
            assert watch.turn() == {9}
            say("guest0", *[OWN] * 1000, tag=bytes.fromhex("81000009"))
            say("guest0", OWN, tag=bytes.fromhex("8100000a"))
            assert watch.turn() == {9, 10}
            assert Station(OWN, 9) not in asyncio.run(behind("port0", OWN)), "the bridge does not say"
        assert asyncio.run(announced_of("port0")) == {
            OWN.hex(":"): [(OTHERS[0].hex(":"), 0), (OWN.hex(":"), 11)]
        }


async def announced_of(tap: str) -> dict[str, list[tuple[str, int]]]:
    """What a leaving guest's host sends to the other one, when the guest has sent in VLAN 11."""
    watch = StationWatch([(tap, OWN)], logging.getLogger())
    async with asyncio.timeout(10):
        looking = asyncio.create_task(watch.keep_looking())
        while not watch.to_json():  # until it has begun
            await asyncio.sleep(0.01)
        say("guest0", OWN, tag=bytes.fromhex("8100000b"))
        told = watch.to_json()
    looking.cancel()
    return told


@pytest.mark.parametrize("known", [(), (1,), tuple(range(1, MOST_VLANS + 1))])
def test_the_filter_of_known_vlans_jumps_nowhere_else(known: tuple[int, ...]) -> None:
    program = tag_filter(OWN, known)
    accept = len(program) - 2
    targets = {
        at + 1 + way for at, (code, *ways, _) in enumerate(program) if code == 0x15 for way in ways if way
    }
    assert targets == {accept + 1}
    assert all(0 <= way <= 255 for _, *ways, _ in program for way in ways), "a jump is a byte"
