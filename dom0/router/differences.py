"""What the VM's kernel does to packets and the namespace would not do. While there is such a thing, the VM forwards itself. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from dom0.fib.agent_state import AgentReport
from dom0.fib.link import VmLink
from dom0.fib.vm_kernel import VmKernel
from dom0.router.namespace import RouterInterface
from vmnet.router import Bypass

_ALIKE = frozenset({"dummy", "nlmon", "ifb"})
"""Kinds of devices out of which no data packet comes."""
NIC_KINDS = frozenset({"", "veth"})
"""veth: of a router in a namespace or a container."""
_ARPHRD_PIMREG = 779  # linux/if_arp.h; multicast routing makes it, and multicast stays with the VM
_PLAIN_QDISCS = frozenset(
    {"noqueue", "mq", "pfifo", "bfifo", "pfifo_fast", "pfifo_head_drop", "fq", "fq_codel", "fq_pie", "sfq"}
)
"""They queue. They neither filter nor limit a rate."""


@dataclass(frozen=True)
class Difference:
    """``kind``: what the operator may allow; None if this host cannot forward with it at all."""

    kind: Bypass | None
    text: str

    def __str__(self) -> str:
        return f"{self.kind or 'indexes'}: {self.text}"


def differences(
    report: AgentReport, data: Mapping[bytes, RouterInterface], management: RouterInterface | None
) -> list[Difference]:
    """``report``: what the VM's agent tells; ``data``: the router's interfaces here, by MAC; ``management``: its management link."""
    if not report.kernel.told:
        return [
            Difference(
                Bypass.UNTOLD, "its agent does not tell what the VM's kernel does beside routing: update it"
            )
        ]
    known = {mac.hex(":"): interface for mac, interface in data.items()}
    besides = [] if management is None else [management]
    names = {interface.name for interface in (*data.values(), *besides)}
    return [
        *_interfaces(report.kernel, known, {interface.mac.hex(":") for interface in besides}),
        *(Difference(Bypass.FILTERS, text) for text in report.kernel.filters),
        *_forwarding(report, known),
        *_rules(report, names),
        *_tc(report.kernel, known),
    ]


def _interfaces(
    kernel: VmKernel, known: Mapping[str, RouterInterface], besides: Set[str]
) -> Iterator[Difference]:
    """``besides``: MACs of NICs that carry no data."""
    names = {link.index: link.name for link in kernel.links}
    for link in kernel.links:
        is_nic = link.kind in NIC_KINDS
        ours = known.get(link.mac) if is_nic else None
        if ours is None:
            if _may_carry_data(link) and not (is_nic and link.mac in besides):
                what = f" (MAC {link.mac or 'none'})" if is_nic else f" ({link.kind})"
                yield Difference(Bypass.INTERFACES, f"{link.name}{what} is up in the VM and not copied")
        elif link.index != ours.index:
            yield Difference(None, f"the VM's {link.name} has index {link.index}, not {ours.index}")
        elif link.master:
            master = names.get(link.master, f"interface {link.master}")
            yield Difference(Bypass.INTERFACES, f"the VM's {link.name} is a port of {master}")


def _may_carry_data(link: VmLink) -> bool:
    return link.up and not link.loopback and link.kind not in _ALIKE and link.hardware != _ARPHRD_PIMREG


def _forwarding(report: AgentReport, known: Mapping[str, RouterInterface]) -> Iterator[Difference]:
    """IPv4 by the interface by which a packet comes (``IN_DEV_FORWARD``), IPv6 for all (``ip6_forward``, net/ipv6/ip6_output.c)."""
    indexes = {interface.index: interface.name for interface in known.values()}
    with_addresses: dict[int, set[int]] = defaultdict(set)
    for address in report.addresses:
        if address.index in indexes and not _only_local(address.interface):
            with_addresses[address.interface.version].add(address.index)
    forwarding = report.kernel.forwarding
    for index in sorted(with_addresses[4]):
        if not forwarding.get((4, index), True):
            yield Difference(Bypass.FORWARDING, f"the VM does not forward IPv4 from {indexes[index]}")
    # one interface with an IPv6 address is that of a host, which may have got it from another router
    if len(with_addresses[6]) > 1 and not forwarding.get((6, -1), True):
        yield Difference(Bypass.FORWARDING, "the VM does not forward IPv6")


def _only_local(address: IPv4Interface | IPv6Interface) -> bool:
    return address.version == 6 and address.ip.is_link_local


def _rules(report: AgentReport, names: Set[str]) -> Iterator[Difference]:
    if report.refused_rules:
        yield Difference(Bypass.RULES, f"{report.refused_rules} of its policy rules cannot be copied")
    for name in sorted({name for rule in report.rules for name in rule.names} - names - {"lo"}):
        yield Difference(Bypass.RULES, f"a policy rule names {name}, which this host has not")


def _tc(kernel: VmKernel, known: Mapping[str, RouterInterface]) -> Iterator[Difference]:
    indexes = {interface.index: interface.name for interface in known.values()}
    for index, kind in sorted(set(kernel.qdiscs)):
        if index in indexes and kind not in _PLAIN_QDISCS:
            yield Difference(Bypass.TC, f"the VM's {indexes[index]} has the queueing discipline {kind}")
    for link in kernel.links:
        if link.xdp and link.index in indexes:
            yield Difference(Bypass.TC, f"the VM's {link.name} has an XDP program")
