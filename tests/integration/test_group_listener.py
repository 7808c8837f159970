"""A guest's multicast reports, heard at its tap by the kernel's filter; and a Linux guest's answers to our questions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
from dataplane_kit import Host, ip, isolated, until, veth

from dom0.dataplane.announce import rarp
from dom0.dataplane.group_reports import MOST_REPORTS, ReportListener, report_filter
from dom0.dataplane.listener import Listener
from dom0.guest_port import GuestPort
from dom0.port_reports import ReportWatch

pytestmark = pytest.mark.root
OWN = bytes.fromhex("525400000001")


def report(number: int, mac: bytes = OWN, tag: bytes = b"") -> bytes:
    """IGMPv2, of group 239.0.0.NUMBER."""
    group = bytes((239, 0, 0, number))
    body = struct.pack("!BBH4s", 0x16, 0, 0, group)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 1, 2, 0, bytes((10, 0, 0, 10)), group)
    return (bytes.fromhex("01005e000000") + mac + tag + b"\x08\x00" + header + body).ljust(60, b"\0")


def send(device: str, *frames: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as guest:
        guest.bind((device, 0))
        for frame in frames:
            guest.send(frame)


def pair(host: Host, guest: Host) -> None:
    """Port ``port0`` of bridge br0, and behind it the guest."""
    veth(host, "port0", guest, "guest0")
    with guest:
        Path("/proc/sys/net/ipv4/igmp_qrv").write_text("1")  # what is joined is reported once; of IPv6 twice
        ip("link", "set", "guest0", "address", OWN.hex(":"), "up")
        Path("/proc/sys/net/ipv6/conf/guest0/disable_ipv6").write_text("0")
        ip("address", "add", "10.0.0.10/24", "dev", "guest0")
    with host:
        ip("link", "add", "br0", "type", "bridge")
        ip("link", "set", "port0", "master", "br0", "up")
        ip("link", "set", "br0", "up")


@isolated(30)
def test_heard_are_the_guests_reports_alone() -> None:
    with Host():
        ip("link", "add", "port0", "type", "veth", "peer", "name", "guest0")
        for device in ("port0", "guest0"):
            ip("link", "set", device, "addrgenmode", "none", "up")
        with contextlib.closing(ReportListener("port0", OWN)) as listener:
            send("port0", report(1))  # to the guest
            send("guest0", report(2, bytes.fromhex("020000000009")), report(3, tag=bytes.fromhex("81000007")))
            send("guest0", rarp(OWN), report(4), report(5), report(4))
            assert listener.turn() == [report(5), report(4)], "in order, each once"
            send("guest0", *[report(number) for number in range(200)])
            assert listener.turn() == [report(number) for number in range(200 - MOST_REPORTS, 200)]


def groups(frames: Iterable[bytes]) -> set[str]:
    """Those of ours that the frames report."""
    ours = {"239.1.2.3": socket.inet_aton, "ff05::123": partial(socket.inet_pton, socket.AF_INET6)}
    return {group for group, packed in ours.items() if any(packed(group) in frame for frame in frames)}


@isolated(60)
def test_a_linux_guest_answers() -> None:
    """It has reported before; asked, it does so again."""
    host, guest = Host(), Host()
    pair(host, guest)
    reported: list[bytes] = []

    def done() -> bool:
        reported.extend(listener.drain())
        return [len(groups([one])) for one in reported].count(1) == 3

    with host, contextlib.closing(Listener("port0", report_filter(OWN))) as listener:
        with guest:
            four, six = (socket.socket(one, socket.SOCK_DGRAM) for one in (socket.AF_INET, socket.AF_INET6))
            index = struct.pack("=I", socket.if_nametoindex("guest0"))
            membership = socket.inet_aton("239.1.2.3") + socket.inet_aton("10.0.0.10")
            four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            membership = socket.inet_pton(socket.AF_INET6, "ff05::123") + index
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
        until(done, 20, "the guest's reports as it joins")
        asyncio.run(heard())
        four.close()
        six.close()


async def heard() -> None:
    watch = ReportWatch([GuestPort("port0", OWN, "br0")], logging.getLogger())
    listening = asyncio.create_task(watch.keep_listening())
    try:
        async with asyncio.timeout(10):
            while len(groups(map(bytes.fromhex, watch.to_json().get(OWN.hex(":"), [])))) < 2:
                await asyncio.sleep(0.05)
    finally:
        listening.cancel()
