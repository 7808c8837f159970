"""What a router's agent tells of its kernel beside routes: each message parsed, kept, and made anew on another host."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.fib import netfilter
from dom0.fib.message import (
    DELLINK,
    DELQDISC,
    NETFILTER_BEGINS,
    NETFILTER_COMPLETE,
    NEWCHAIN,
    NEWLINK,
    NEWNETCONF,
    NEWQDISC,
    MalformedError,
    RefusedMessageError,
    attribute,
    message,
)
from dom0.fib.vm_kernel import VmKernelState, kind_of


def link(index: int, name: str, *more: bytes, kind: int = NEWLINK, flags: int = 1) -> bytes:
    body = struct.pack("=BxHiII", 0, 1, index, flags, 0) + attribute(3, name.encode() + b"\0")
    return message(kind, 0, body + attribute(1, bytes(5) + bytes([index])) + b"".join(more))


def info(kind: str) -> bytes:
    return attribute(18, attribute(1, kind.encode() + b"\0"))


def netconf(family: int, index: int, forwarding: int) -> bytes:
    body = bytes([family, 0, 0, 0]) + attribute(1, struct.pack("=i", index))
    return message(NEWNETCONF, 0, body + attribute(2, struct.pack("=i", forwarding)))


def qdisc(index: int, name: str, kind: int = NEWQDISC) -> bytes:
    body = struct.pack("=BxHiIII", 0, 0, index, 0x10000, 0xFFFFFFFF, 0)
    return message(kind, 0, body + attribute(1, name.encode() + b"\0"))


def chain(family: int, hook: int | None, rules: int, policy: int | None = 1, name: str = "f") -> bytes:
    body = struct.pack("=BBH", family, 0, 0) + attribute(1, b"fw\0") + attribute(3, name.encode() + b"\0")
    if hook is not None:
        body += attribute(4 | 0x8000, attribute(1, struct.pack("!I", hook)))
    if policy is not None:
        body += attribute(5, struct.pack("!I", policy))
    return message(NEWCHAIN, 0, body + attribute(6, struct.pack("!I", rules)))


BEGINS, COMPLETE = message(NETFILTER_BEGINS, 0, bytes(4)), message(NETFILTER_COMPLETE, 0, bytes(4))


def state(*messages: bytes) -> VmKernelState:
    made = VmKernelState()
    made.begin(True)
    for data in messages:
        made.feed(kind_of(data), data)
    return made


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (chain(1, 2, 1), True),  # a rule in inet's forward
        (chain(2, 0, 3), True),  # ip, prerouting
        (chain(10, 4, 1), True),  # ip6, postrouting
        (chain(1, 2, 0, policy=0), True),  # no rule, all dropped
        (chain(5, 0, 1), True),  # netdev, ingress
        (chain(5, 1, 1), True),  # netdev, egress
        (chain(1, 5, 1), True),  # inet, ingress
        (chain(1, 2, 0), False),  # Debian's own /etc/nftables.conf
        (chain(1, 1, 9, policy=0), False),  # input: of packets for the VM itself
        (chain(1, 3, 9), False),  # output
        (chain(1, None, 9, policy=None), False),  # reached by a jump only
        (chain(3, 1, 9), False),  # arp
        (chain(7, 2, 9), False),  # bridge
    ],
)
def test_chains_that_data_packets_pass(data: bytes, changes: bool) -> None:
    assert netfilter.parse(data).changes_packets is changes
    assert bool(state(BEGINS, data, COMPLETE).view.filters) is changes


def test_netfilter_holds_until_it_is_told_anew_as_a_whole() -> None:
    kernel = state(BEGINS, chain(1, 2, 1), COMPLETE, BEGINS)
    assert kernel.view.filters == ("nftables chain inet fw f (forward) has rules or drops",)
    kernel.feed(NETFILTER_COMPLETE, COMPLETE)
    assert kernel.view.filters == ()
    flags = message(NETFILTER_BEGINS, 0, struct.pack("=I", 7))
    assert state(flags, COMPLETE).view.filters == (
        "iptables has rules",
        "ip6tables has rules",
        "nftables cannot be read",
    )
    with pytest.raises(MalformedError):
        state(chain(1, 2, 1))


def test_links_settings_and_queueing_go_with_their_link() -> None:
    kernel = state(
        link(2, "eth0"), link(9, "red", info("vrf")), netconf(2, 2, 0), netconf(10, -1, 1), qdisc(2, "tbf")
    )
    assert [(one.name, one.kind) for one in kernel.view.links] == [("eth0", ""), ("red", "vrf")]
    assert kernel.view.forwarding == {(4, 2): False, (6, -1): True}
    assert kernel.view.qdiscs == ((2, "tbf"),)
    kernel.feed(DELLINK, link(2, "eth0", kind=DELLINK))
    assert kernel.view.forwarding == {(6, -1): True} and kernel.view.qdiscs == ()
    again = state(qdisc(3, "htb"))
    again.feed(DELQDISC, qdisc(3, "htb", DELQDISC))
    assert again.view.qdiscs == ()


def test_a_setting_that_was_not_told_is_left() -> None:
    only_proxy = message(NEWNETCONF, 0, bytes([2, 0, 0, 0]) + attribute(1, struct.pack("=i", 2)))
    assert state(netconf(2, 2, 0), only_proxy).view.forwarding == {(4, 2): False}


ALL = [
    link(2, "eth0", attribute(10, struct.pack("=I", 9)), attribute(43, attribute(2, b"\1"))),
    link(9, "red", info("vrf")),
    qdisc(2, "tbf"),
    netconf(2, 2, 0),
    BEGINS,
    chain(1, 2, 1),
    COMPLETE,
]


def test_another_host_makes_the_same_state() -> None:
    there = VmKernelState()
    there.restore(True, state(*ALL).messages(), state(*ALL).filters)
    assert there.view == state(*ALL).view
    assert there.view.links[0].master == 9 and there.view.links[0].xdp
    with pytest.raises(MalformedError):
        there.restore(True, [message(24, 0, bytes(12))], [])


def test_numbers_are_bounded() -> None:
    kernel = state()
    with pytest.raises(MalformedError, match="more than 4096"):
        for index in range(1, 6000):
            data = qdisc(index, "fq")
            kernel.feed(NEWQDISC, data)
    with pytest.raises(MalformedError, match="more than 4096"):
        state(BEGINS, *(chain(1, 2, 1) for _ in range(5000)))


@given(st.sampled_from(ALL), st.integers(0, 200), st.integers(0, 255), st.integers(0, 200))
def test_damaged_messages_are_refused_or_understood(data: bytes, at: int, value: int, cut: int) -> None:
    damaged = bytearray(data)
    damaged[16 + at % (len(data) - 16)] = value
    shortened = bytes(damaged[: max(16, len(damaged) - cut % len(damaged))])
    kernel = state(BEGINS)
    try:
        kernel.feed(kind_of(data), shortened)
        kernel.feed(NETFILTER_COMPLETE, COMPLETE)
        there = VmKernelState()
        there.restore(True, kernel.messages(), kernel.filters)
        assert there.view == kernel.view
    except (MalformedError, RefusedMessageError):
        pass
