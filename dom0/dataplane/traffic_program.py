"""The eBPF program that counts whom a guest speaks with, and the table it counts in. Pure: bytes in, bytes out.

It is the filter of a packet socket on the guest's tap, where it sees each frame either way and lets none through: nothing is copied,
nothing sampled, and nothing can be dropped for want of room. Counted are a frame's bytes, under the address at its other end: the IP
address, or the MAC address of what is no IP. Left out are broadcast and multicast, ARP and neighbour discovery, and frames that are
not the guest's own (a bridge floods).

========= ===== ======================================================================
table     bytes
========= ===== ======================================================================
key       4     kind: 4, 6 (IP version), 1 (MAC address), 0 (whatever has no room)
          4     0
          16    address, zeros behind it
value     8     bytes
          6     the MAC address that the last of them bore
          2     0
========= ===== ======================================================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from dom0.dataplane.bpf_asm import DW, R0, R1, R2, R3, R4, R6, R7, R8, R9, R10, B, H, Program, W

KEY_BYTES: Final = 24
VALUE_BYTES: Final = 16
MOST_ADDRESSES: Final = 4096
"""Told apart; the others are counted together. Whoever sends to more of them hides nobody but his own clients."""
OTHER: Final = bytes(KEY_BYTES)

_LOOKUP, _UPDATE, _LOAD_BYTES = 1, 2, 26  # BPF_FUNC_map_lookup_elem, _map_update_elem, _skb_load_bytes
_NOEXIST = 1
_SKB_LEN, _SKB_PKT_TYPE, _SKB_VLAN_PRESENT = 0, 4, 20
_OUTGOING = 4  # PACKET_OUTGOING: the host sends it, so the guest gets it
_MAC, _IPV4, _IPV6 = 1, 4, 6
_ICMPV6, _DISCOVERY = 58, (133, 137)
_SKIPPED: Final = (0x0806, 0x8035, 0x88CC)
"""ARP, RARP, LLDP."""
_TAGS: Final = (0x8100, 0x88A8)

# on the stack, below R10
_KEY, _ADDRESS = -24, -16
_HEADER, _SOURCE, _TYPE = -40, -34, -28
_FOUND_MAC = -48
_NEW = -64
_BYTE = -72


@dataclass(frozen=True)
class Counted:
    """``address``: of who is at the other end, IP or MAC; ``None``: of all that had no room. ``mac``: what the frames bore."""

    address: IPv4Address | IPv6Address | bytes | None
    mac: bytes
    bytes: int


def counted(key: bytes, value: bytes) -> Counted:
    """An entry of the table."""
    (kind,) = struct.unpack_from("=I", key)
    (size,) = struct.unpack_from("=Q", value)
    address: IPv4Address | IPv6Address | bytes | None = None
    if kind == _IPV4:
        address = IPv4Address(key[8:12])
    elif kind == _IPV6:
        address = IPv6Address(key[8:24])
    elif kind == _MAC:
        address = key[8:14]
    return Counted(address, value[8:14], size)


def code(map_fd: int, mac: bytes) -> bytes:
    """For a tap of the guest whose address there is ``mac``."""
    made = Program()
    made.mov_reg(R6, R1)
    made.load(W, R7, R6, _SKB_PKT_TYPE)
    _clear_key(made)
    _load_bytes(made, _HEADER, 14, 0)
    _ends(made, mac)
    _network(made)
    _count(made, map_fd)
    made.label("out")
    made.mov(R0, 0)
    made.exit()
    return made.assemble()


def _clear_key(made: Program) -> None:
    made.mov(R3, 0)
    for at in range(_KEY, 0, 8):
        made.store(DW, R10, at, R3)


def _load_bytes(made: Program, to: int, size: int, at: int, base: int | None = None) -> None:
    """``size`` bytes of the frame, from ``at`` (after what register ``base`` says), to the stack; a shorter frame is left out."""
    made.mov_reg(R1, R6)
    if base is None:
        made.mov(R2, at)
    else:
        made.mov_reg(R2, base)
        made.alu("add", R2, at)
    made.mov_reg(R3, R10)
    made.alu("add", R3, to)
    made.mov(R4, size)
    made.call(_LOAD_BYTES)
    made.jump_if("ne", R0, 0, "out")


def _ends(made: Program, mac: bytes) -> None:
    """Leave out what is sent to several, or by or to somebody else than the guest; keep the other end's MAC address."""
    if len(mac) != 6:
        raise ValueError(f"a MAC address has 6 bytes, not {len(mac)}")
    made.load(B, R3, R10, _HEADER)
    made.jump_if("set", R3, 1, "out")
    made.mov(R3, 0)
    made.store(DW, R10, _FOUND_MAC, R3)
    made.jump_if("eq", R7, _OUTGOING, "to guest")
    for own, other, after in ((_SOURCE, _HEADER, "from guest done"), (_HEADER, _SOURCE, "ends known")):
        for n in (0, 2, 4):
            made.load(H, R3, R10, own + n)
            made.jump_if("ne", R3, struct.unpack_from("=H", mac, n)[0], "out")
        for n in (0, 2, 4):
            made.load(H, R3, R10, other + n)
            made.store(H, R10, _FOUND_MAC + n, R3)
        if after == "from guest done":
            made.jump("ends known")
            made.label("to guest")
    made.label("ends known")


def _network(made: Program) -> None:
    """The key. R8: the Ethernet type, R9: where its header begins."""
    made.load(H, R8, R10, _TYPE)
    made.mov(R9, 14)
    for tag in _TAGS:
        made.jump_if("eq", R8, _as_loaded(tag), "tagged")
    made.jump("untagged")
    made.label("tagged")
    _load_bytes(made, _TYPE, 2, 16)
    made.load(H, R8, R10, _TYPE)
    made.mov(R9, 18)
    made.label("untagged")
    for kind in _SKIPPED:
        made.jump_if("eq", R8, _as_loaded(kind), "out")
    made.jump_if("eq", R8, _as_loaded(0x0800), "ipv4")
    made.jump_if("eq", R8, _as_loaded(0x86DD), "ipv6")
    _kind(made, _MAC)
    for n in (0, 2, 4):
        made.load(H, R3, R10, _FOUND_MAC + n)
        made.store(H, R10, _ADDRESS + n, R3)
    made.jump("count")
    made.label("ipv4")
    _kind(made, _IPV4)
    _address(made, 12, 4)
    made.jump("count")
    made.label("ipv6")
    _kind(made, _IPV6)
    _leave_discovery_out(made)
    _address(made, 8, 16)


def _as_loaded(kind: int) -> int:
    """An Ethernet type as a load of two bytes gives it."""
    return int(struct.unpack("=H", struct.pack("!H", kind))[0])


def _kind(made: Program, kind: int) -> None:
    made.mov(R3, kind)
    made.store(W, R10, _KEY, R3)


def _address(made: Program, source: int, size: int) -> None:
    """The header's source address of what the guest gets; the destination, which follows it, of what it sends."""
    made.jump_if("eq", R7, _OUTGOING, f"source of {size}")
    made.alu("add", R9, size)
    made.label(f"source of {size}")
    _load_bytes(made, _ADDRESS, size, source, R9)


def _leave_discovery_out(made: Program) -> None:
    _load_bytes(made, _BYTE, 1, 6, R9)
    made.load(B, R3, R10, _BYTE)
    made.jump_if("ne", R3, _ICMPV6, "no discovery")
    _load_bytes(made, _BYTE, 1, 40, R9)
    made.load(B, R3, R10, _BYTE)
    made.jump_if("lt", R3, _DISCOVERY[0], "no discovery")
    made.jump_if("le", R3, _DISCOVERY[1], "out")
    made.label("no discovery")


def _count(made: Program, map_fd: int) -> None:
    """Under the key; in an entry made for it; or, where there is no room for one, under :data:`OTHER`."""
    made.label("count")
    made.load(W, R8, R6, _SKB_LEN)
    made.load(W, R3, R6, _SKB_VLAN_PRESENT)
    made.jump_if("eq", R3, 0, "whole")
    made.alu("add", R8, 4)  # a tag that the kernel keeps beside the frame
    made.label("whole")
    _lookup(made, map_fd)
    _new(made, map_fd)
    _lookup(made, map_fd)  # also if another processor was quicker
    _clear_key(made)
    _lookup(made, map_fd)
    made.jump("out")
    made.label("found")
    made.atomic_add(R0, 0, R8)
    made.load(DW, R3, R10, _FOUND_MAC)
    made.store(DW, R0, 8, R3)


def _lookup(made: Program, map_fd: int) -> None:
    made.map_pointer(R1, map_fd)
    made.mov_reg(R2, R10)
    made.alu("add", R2, _KEY)
    made.call(_LOOKUP)
    made.jump_if("ne", R0, 0, "found")


def _new(made: Program, map_fd: int) -> None:
    made.mov(R3, 0)
    made.store(DW, R10, _NEW, R3)
    made.store(DW, R10, _NEW + 8, R3)
    made.map_pointer(R1, map_fd)
    made.mov_reg(R2, R10)
    made.alu("add", R2, _KEY)
    made.mov_reg(R3, R10)
    made.alu("add", R3, _NEW)
    made.mov(R4, _NOEXIST)
    made.call(_UPDATE)
