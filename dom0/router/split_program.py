"""The split: the eBPF program in front of a router's data plane that tells data from control. Pure: instructions only.

It sits on the egress of the router's port (the host's end of a veth whose other end is the router's interface in its namespace), so it
sees all that the host's bridge sends to the router.

=========================================================== ======================= =========================================
frame                                                       goes to                 because
=========================================================== ======================= =========================================
IPv4/IPv6 unicast to others                                 the namespace           data: the kernel forwards it
IPv4/IPv6 to one of the router's addresses, link-local       the VM                  BGP, ssh, SNMP, BFD, LDP, ping
multicast, broadcast (IP)                                   the VM                  OSPF, RIP, VRRP, PIM, IGMP, MLD, RS
IPv4 with options, IPv6 with hop-by-hop options             the VM                  router alert: RSVP, IGMP
what ``[router] control`` lists                             the VM                  configured
ARP request, neighbour solicitation for a router's address  the namespace           Dom0 answers, whether the VM runs or not
all other ARP, neighbour solicitations, advertisements      both                    both keep neighbours
RARP                                                        both                    the end marker of a migration
anything else (IS-IS, LLDP, MPLS, VLAN tags)                the VM                  it may know what to do with it
=========================================================== ======================= =========================================

Control always goes to the VM's tap, where the VM's own gate (:mod:`dom0.dataplane.gate_program`) holds or diverts it while the VM
moves; on the way its neighbours' BFD packets are changed if ``PATIENCE`` is set (:mod:`dom0.router.patience`). Data obeys this port's
own mode; ``SLOW`` sends everything to the VM (a data plane without routes yet), the neighbours' answers to the namespace as well.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Network

from dom0.dataplane.bpf_asm import DW, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, B, H, Program, W
from dom0.dataplane.gate_program import (
    MARK,
    SKB_DATA,
    SKB_DATA_END,
    SKB_MARK,
    SKB_PROTOCOL,
    SKB_VLAN_PRESENT,
    Mode,
    Word,
    begin,
    finish,
    increment,
    lane,
    redirect,
)
from dom0.router.patience import prolong
from vmnet.control_rules import ControlRule

ADDRESS_KEY_BYTES = 16
MOST_ADDRESSES = 4096

_LOOKUP, _CLONE_REDIRECT, _PULL = 1, 13, 39
_TC_UNSPEC, _TC_SHOT = -1, 2
_KEY = -16
"""On the stack: the address looked up, IPv4 as ::ffff:a.b.c.d."""

_ETHER = 14
_HEADERS = 62
"""Ethernet, IPv6, ports; what must lie in the frame's linear part."""
_ARP_BYTES, _NS_BYTES = _ETHER + 28, _ETHER + 64
_V4_BYTES, _V6_BYTES = _ETHER + 24, _ETHER + 44
_ARP_OPERATION, _ARP_SENDER, _ARP_TARGET = _ETHER + 6, _ETHER + 14, _ETHER + 24
_V4_VERSION, _V4_FRAGMENT, _V4_PROTOCOL, _V4_DESTINATION = _ETHER, _ETHER + 6, _ETHER + 9, _ETHER + 16
_V6_NEXT, _V6_SOURCE, _V6_DESTINATION = _ETHER + 6, _ETHER + 8, _ETHER + 24
_V6_TYPE, _V6_NS_TARGET = _ETHER + 40, _ETHER + 48
_ICMPV6, _SOLICITATION, _ADVERTISEMENT, _HOP_BY_HOP = 58, 135, 136, 0


def address_key(packed: bytes) -> bytes:
    """The key of a router's address (4 or 16 bytes) in the set the program looks into."""
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def split_code(map_fd: int, addresses_fd: int, rules: Sequence[ControlRule]) -> bytes:
    """``map_fd``: the port's shared memory; ``addresses_fd``: a set of :func:`address_key` of the router's own addresses."""
    code = Program()
    begin(code, map_fd)
    _classify(code, addresses_fd, rules)
    _control(code)
    _both(code)
    code.label("data")
    code.load(DW, R5, R7, Word.MODE)
    code.jump_if("eq", R5, Mode.SLOW, "to tap")
    code.label("lane")
    code.load(DW, R5, R7, Word.MODE)
    code.jump_if("eq", R5, Mode.DIVERT, "divert")
    code.load(W, R2, R6, SKB_MARK)
    code.jump_if("eq", R2, MARK, "marked")
    lane(code)
    return code.assemble()


def talk_code(map_fd: int) -> bytes:
    """On the port's ingress, what the router sends: nothing unless ``TALK`` is set; into ``LINK_IFINDEX`` if that is."""
    code = Program()
    begin(code, map_fd)
    code.load(DW, R5, R7, Word.TALK)
    code.jump_if("ne", R5, 0, "talk")
    increment(code, Word.MUTED)
    finish(code, _TC_SHOT)
    code.label("talk")
    code.load(DW, R5, R7, Word.LINK_IFINDEX)
    code.jump_if("eq", R5, 0, "here")
    redirect(code, Word.LINK_IFINDEX)
    code.label("here")
    finish(code, _TC_UNSPEC)
    return code.assemble()


def _classify(code: Program, addresses_fd: int, rules: Sequence[ControlRule]) -> None:
    """Ends at one of the labels "control", "both", "lane" (to the namespace whatever the VM does) or "data"."""
    _frame_in_r9(code)
    code.load(W, R5, R6, SKB_VLAN_PRESENT)
    code.jump_if("ne", R5, 0, "control")
    code.load(W, R5, R6, SKB_PROTOCOL)
    code.jump_if("eq", R5, socket.htons(0x0806), "arp")
    # an announcement that both ways must carry: it is the end marker of either
    code.jump_if("eq", R5, socket.htons(0x8035), "both")
    code.jump_if("eq", R5, socket.htons(0x0800), "ipv4")
    code.jump_if("ne", R5, socket.htons(0x86DD), "control")
    _ipv6(code, addresses_fd, rules)
    _arp(code, addresses_fd)
    _ipv4(code, addresses_fd, rules)


def _frame_in_r9(code: Program) -> None:
    """R9: the frame, R3: its end; a large frame's headers are brought into its linear part first."""
    code.load(W, R9, R6, SKB_DATA)
    code.load(W, R3, R6, SKB_DATA_END)
    code.jump_if("lt", R8, _HEADERS, "linear")
    _room(code, _HEADERS, "pull")
    code.jump("linear")
    code.label("pull")
    code.mov_reg(R1, R6)
    code.mov(R2, _HEADERS)
    code.call(_PULL)
    code.load(W, R9, R6, SKB_DATA)
    code.load(W, R3, R6, SKB_DATA_END)
    code.label("linear")
    _room(code, _ETHER, "control")


def _room(code: Program, size: int, otherwise: str) -> None:
    code.mov_reg(R4, R9)
    code.alu("add", R4, size)
    code.jump_if_reg("gt", R4, R3, otherwise)


def _arp(code: Program, addresses_fd: int) -> None:
    code.label("arp")
    _room(code, _ARP_BYTES, "control")
    code.load(H, R5, R9, _ARP_OPERATION)
    code.jump_if("ne", R5, socket.htons(1), "both")
    code.load(W, R5, R9, _ARP_SENDER)
    code.jump_if("eq", R5, 0, "both")  # a probe (RFC 5227): both defend
    code.load(W, R4, R9, _ARP_TARGET)
    code.jump_if_reg("eq", R5, R4, "both")  # an announcement
    _key4(code, _ARP_TARGET)
    _lookup(code, addresses_fd)
    code.jump_if("ne", R0, 0, "resolve")
    code.jump("both")


def _ipv4(code: Program, addresses_fd: int, rules: Sequence[ControlRule]) -> None:
    code.label("ipv4")
    _room(code, _V4_BYTES, "control")
    code.load(B, R5, R9, 0)
    code.jump_if("set", R5, 1, "control")
    code.load(B, R5, R9, _V4_VERSION)
    code.jump_if("ne", R5, 0x45, "control")
    code.load(B, R5, R9, _V4_DESTINATION)
    code.jump_if("ge", R5, 224, "control")
    _key4(code, _V4_DESTINATION)
    _lookup(code, addresses_fd)
    code.jump_if("ne", R0, 0, "control")
    for number, rule in enumerate(rules):
        if rule.prefix is None or rule.prefix.version == 4:
            _rule4(code, rule, f"v4 rule {number}")
    code.jump("data")


def _ipv6(code: Program, addresses_fd: int, rules: Sequence[ControlRule]) -> None:
    _room(code, _V6_BYTES, "control")
    code.load(B, R5, R9, _V6_NEXT)
    code.jump_if("eq", R5, _ICMPV6, "icmpv6")
    code.label("no discovery")
    code.load(B, R5, R9, 0)
    code.jump_if("set", R5, 1, "control")
    code.load(B, R5, R9, _V6_NEXT)
    code.jump_if("eq", R5, _HOP_BY_HOP, "control")
    code.load(B, R5, R9, _V6_DESTINATION)
    code.jump_if("eq", R5, 0xFF, "control")
    code.jump_if("ne", R5, 0xFE, "global")
    code.load(B, R5, R9, _V6_DESTINATION + 1)
    code.alu("and", R5, 0xC0)
    code.jump_if("eq", R5, 0x80, "control")
    code.label("global")
    _key6(code, _V6_DESTINATION)
    _lookup(code, addresses_fd)
    code.jump_if("ne", R0, 0, "control")
    for number, rule in enumerate(rules):
        if rule.prefix is None or rule.prefix.version == 6:
            _rule6(code, rule, f"v6 rule {number}")
    code.jump("data")
    code.label("icmpv6")
    code.load(B, R5, R9, _V6_TYPE)
    code.jump_if("eq", R5, _ADVERTISEMENT, "both")
    code.jump_if("ne", R5, _SOLICITATION, "no discovery")
    _room(code, _NS_BYTES, "control")
    _solicitation(code, addresses_fd)


def _solicitation(code: Program, addresses_fd: int) -> None:
    """For an address of the router, from somebody who has one: the namespace answers alone."""
    code.mov(R5, 0)
    for offset in range(_V6_SOURCE, _V6_SOURCE + 16, 4):
        code.load(W, R4, R9, offset)
        code.alu_reg("or", R5, R4)
    code.jump_if("eq", R5, 0, "both")  # duplicate address detection (RFC 4862): both defend
    _key6(code, _V6_NS_TARGET)
    _lookup(code, addresses_fd)
    code.jump_if("ne", R0, 0, "resolve")
    code.jump("both")


def _key4(code: Program, offset: int) -> None:
    code.mov(R5, 0)
    code.store(DW, R10, _KEY, R5)
    code.mov(R5, struct.unpack("=I", b"\0\0\xff\xff")[0])
    code.store(W, R10, _KEY + 8, R5)
    code.load(W, R5, R9, offset)
    code.store(W, R10, _KEY + 12, R5)


def _key6(code: Program, offset: int) -> None:
    for word in range(0, 16, 4):
        code.load(W, R5, R9, offset + word)
        code.store(W, R10, _KEY + word, R5)


def _lookup(code: Program, addresses_fd: int) -> None:
    """R0: not 0 if the address on the stack is the router's. R1 to R5 are lost."""
    code.map_pointer(R1, addresses_fd)
    code.mov_reg(R2, R10)
    code.alu("add", R2, _KEY)
    code.call(_LOOKUP)


def _rule4(code: Program, rule: ControlRule, end: str) -> None:
    if isinstance(rule.prefix, IPv4Network):
        _prefix_word(
            code, _V4_DESTINATION, rule.prefix.network_address.packed, rule.prefix.netmask.packed, end
        )
    if rule.protocol is not None:
        code.load(B, R5, R9, _V4_PROTOCOL)
        code.jump_if("ne", R5, rule.protocol, end)
    if rule.ports is not None:
        code.load(H, R5, R9, _V4_FRAGMENT)
        code.jump_if("set", R5, socket.htons(0x1FFF), end)
        _port_range(code, _ETHER + 20 + 2, rule.ports, end)
    code.jump("control")
    code.label(end)


def _rule6(code: Program, rule: ControlRule, end: str) -> None:
    if rule.prefix is not None:
        address, mask = rule.prefix.network_address.packed, rule.prefix.netmask.packed
        for word in range(0, 16, 4):
            if any(mask[word : word + 4]):
                _prefix_word(
                    code, _V6_DESTINATION + word, address[word : word + 4], mask[word : word + 4], end
                )
    if rule.protocol is not None:
        code.load(B, R5, R9, _V6_NEXT)
        code.jump_if("ne", R5, rule.protocol, end)
    if rule.ports is not None:
        _port_range(code, _ETHER + 40 + 2, rule.ports, end)
    code.jump("control")
    code.label(end)


def _prefix_word(code: Program, offset: int, address: bytes, mask: bytes, end: str) -> None:
    """Both as they stand in the packet. A 32-bit constant is sign-extended, so both sides are cut to 32 bits alike."""
    code.load(W, R5, R9, offset)
    code.mov(R4, struct.unpack("=I", mask)[0])
    code.alu_reg("and", R5, R4)
    code.mov(R4, struct.unpack("=I", address)[0])
    code.shift_out_high(R4)
    code.shift_out_high(R5)
    code.jump_if_reg("ne", R5, R4, end)


def _port_range(code: Program, offset: int, ports: tuple[int, int], end: str) -> None:
    """Byte by byte: the port in the order of a host's numbers."""
    code.load(B, R5, R9, offset)
    code.shift_left(R5, 8)
    code.load(B, R4, R9, offset + 1)
    code.alu_reg("or", R5, R4)
    code.jump_if("lt", R5, ports[0], end)
    code.jump_if("gt", R5, ports[1], end)


def _control(code: Program) -> None:
    code.label("control")
    code.load(W, R2, R6, SKB_MARK)
    code.jump_if("eq", R2, MARK, "to tap")
    code.load(DW, R5, R7, Word.MODE)
    code.jump_if("eq", R5, Mode.BLOCK, "block")
    code.label("to tap")
    increment(code, Word.CONTROL)
    prolong(code)
    code.load(DW, R5, R7, Word.TAP_IFINDEX)
    code.jump_if("eq", R5, 0, "no tap")
    redirect(code, Word.TAP_IFINDEX)
    code.label("no tap")
    increment(code, Word.NO_TAP)
    finish(code, _TC_SHOT)


def _both(code: Program) -> None:
    """A frame that a tunnel brings reaches the VM by its own tunnel."""
    code.label("resolve")
    code.load(DW, R5, R7, Word.MODE)
    code.jump_if("eq", R5, Mode.SLOW, "to tap")
    code.jump("lane")
    code.label("both")
    code.load(DW, R5, R7, Word.MODE)
    code.load(W, R2, R6, SKB_MARK)
    code.jump_if("eq", R2, MARK, "lane")
    code.jump_if("eq", R5, Mode.BLOCK, "block")
    code.mov_reg(R1, R6)
    code.load(DW, R2, R7, Word.TAP_IFINDEX)
    code.jump_if("eq", R2, 0, "lane")
    code.mov(R3, 0)
    code.call(_CLONE_REDIRECT)
    code.jump("lane")
