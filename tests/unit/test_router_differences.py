"""When a router's VM forwards itself, because its kernel does to packets what a host would not do."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest

from dom0.fib import address, rule
from dom0.fib.agent_state import AgentReport
from dom0.fib.link import VmLink
from dom0.fib.message import INET, INET6, NEWADDR, NEWRULE, attribute, message
from dom0.fib.vm_kernel import VmKernel
from dom0.router.differences import differences
from dom0.router.namespace import RouterInterface
from vmnet.router import Bypass

MACS = [bytes.fromhex(f"52540000000{index}") for index in range(6)]
DATA = {
    MACS[index]: RouterInterface(index, f"eth{index - 2}", MACS[index], 1500, f"p{index}") for index in (2, 3)
}
MANAGEMENT = RouterInterface(4, "eth2", MACS[4], 1500, "p4")


def nic(number: int, name: str = "", **more: Any) -> VmLink:
    return replace(VmLink(number, name or f"ens{number}", MACS[number].hex(":"), 1500, True), **more)


PLAIN = VmKernel(
    told=True,
    links=(
        VmLink(1, "lo", "00:00:00:00:00:00", 65536, True, loopback=True),
        *(nic(index) for index in (2, 3, 4)),
        VmLink(6, "dummy0", "02:00:00:00:00:01", 1500, True, kind="dummy"),
        VmLink(7, "gre0", "", 1476, False, kind="gre", hardware=778),
        VmLink(8, "pimreg", "", 1452, True, hardware=779),
    ),
    forwarding={(4, -1): True, (4, 2): True, (4, 3): True, (6, -1): False},
    qdiscs=((2, "fq_codel"), (3, "mq"), (4, "tbf")),
)


def addressed(index: int, text: str) -> address.Address:
    interface = ip_interface(text)
    family = INET if interface.version == 4 else INET6
    body = struct.pack("=BBBBI", family, interface.network.prefixlen, 0, 0, index)
    return address.parse(
        message(NEWADDR, 0, body + attribute(1, interface.packed) + attribute(2, interface.packed))
    )


FOUR = (addressed(2, "10.1.0.1/24"), addressed(3, "10.2.0.1/24"))
SIX = (addressed(2, "fd01::1/64"), addressed(3, "fd02::1/64"), addressed(3, "fe80::1/64"))


def by_name(name: str) -> rule.Rule:
    body = struct.pack("=BBBBBBBBI", INET, 0, 0, 0, 77, 0, 0, 1, 0)
    return rule.parse(message(NEWRULE, 0, body + attribute(3, name.encode() + b"\0")))


def kinds(report: AgentReport) -> list[Bypass | None]:
    return [one.kind for one in differences(report, DATA, MANAGEMENT)]


def test_a_plain_router_has_none() -> None:
    assert kinds(AgentReport(PLAIN, FOUR, (by_name("eth0"), by_name("eth2"), by_name("lo")))) == []


def test_an_agent_that_tells_nothing_of_it_is_no_plain_router() -> None:
    assert kinds(AgentReport(VmKernel(), FOUR)) == [Bypass.UNTOLD]


@pytest.mark.parametrize(
    ("link", "why"),
    [
        (nic(2, "eth0.100", kind="vlan", index=11), r"eth0.100 \(vlan\) is up"),
        (nic(2, "vrrp4", kind="macvlan", index=11, mac="00:00:5e:00:01:01"), r"vrrp4 \(macvlan\)"),
        (nic(2, "red", kind="vrf", index=11), r"red \(vrf\)"),
        (nic(2, "wg0", kind="wireguard", index=11, mac=""), r"wg0 \(wireguard\)"),
        (nic(5, "ens9"), r"ens9 \(MAC 52:54:00:00:00:05\)"),
    ],
)
def test_an_interface_that_is_not_copied(link: VmLink, why: str) -> None:
    (found,) = differences(AgentReport(replace(PLAIN, links=(*PLAIN.links, link)), FOUR), DATA, MANAGEMENT)
    assert found.kind is Bypass.INTERFACES
    assert re.search(why, found.text)
    down = replace(link, up=False)
    assert kinds(AgentReport(replace(PLAIN, links=(*PLAIN.links, down)), FOUR)) == []


def test_a_nic_that_is_a_port_of_another_device_or_has_another_index() -> None:
    port = replace(PLAIN, links=(nic(2, master=9), nic(3)))
    assert kinds(AgentReport(port, FOUR)) == [Bypass.INTERFACES]
    moved = replace(PLAIN, links=(nic(2), nic(3, index=7)))
    assert kinds(AgentReport(moved, FOUR)) == [None]


def test_forwarding_of_each_kind() -> None:
    off = replace(PLAIN, forwarding={(4, 2): False, (4, 3): True, (4, 4): False, (6, -1): False})
    (found,) = differences(AgentReport(off, FOUR), DATA, MANAGEMENT)
    assert str(found) == "forwarding: the VM does not forward IPv4 from eth0"
    assert kinds(AgentReport(PLAIN, SIX)) == [Bypass.FORWARDING]
    assert kinds(AgentReport(PLAIN, SIX[1:])) == [], "a host's IPv6 address on one LAN makes no IPv6 router"
    assert kinds(AgentReport(off, ())) == [], "what has no address forwards nothing"


def test_filters_rules_and_queueing() -> None:
    busy = replace(PLAIN, filters=("iptables has rules",), qdiscs=((2, "htb"), (3, "clsact"), (4, "htb")))
    assert kinds(AgentReport(busy, FOUR, (by_name("ppp0"),), 1)) == [
        Bypass.FILTERS,
        Bypass.RULES,
        Bypass.RULES,
        Bypass.TC,
        Bypass.TC,
    ]
    xdp = replace(PLAIN, links=(nic(2, xdp=True), nic(3)))
    assert kinds(AgentReport(xdp, FOUR)) == [Bypass.TC]
