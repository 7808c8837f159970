"""The gate: the eBPF program on a tap's egress that decides where a frame bound for the guest goes, and the memory it shares with us.

Attached to the tap itself (:mod:`dom0.dataplane.classifier`), so it works alike under a Linux bridge, Open vSwitch or anything else
that hands frames to the tap. Its mode is one word: a switchover is one store, not a call.

====== ===== ==========================================================================================
mode   name  what happens to a frame for the guest
====== ===== ==========================================================================================
0      PASS  goes on to the guest
1      BLOCK dropped and counted (at the destination before the switchover: the source still gets a copy)
2      HOLD  into the park, within its bounds
3      CLOSE into the park until the park is empty, from then on to ``exit_ifindex`` (0: to the guest)
4      DIVERT straight to ``exit_ifindex``
====== ===== ==========================================================================================

Frames that carry :data:`MARK` come from the tunnel or from the park itself and always go on to the guest; while ``bounded`` is set
they are limited like the park is (they wait in the tap's ring for a guest that is not running yet). Frames that carry :data:`SETUP`
are counted and dropped: they have shown that the host's switch has a flow for their like.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from controller_bridge import fence
from dom0.dataplane.bpf_asm import DW, R0, R1, R2, R3, R4, R5, R6, R7, R8, B, H, Program, W

MARK: Final = 0x766D6E74
"""skb->mark of frames that have been through the tunnel or the park (ASCII ``vmnt``)."""

SAID: Final = 0x766D6E73
"""skb->mark of frames that come in at a guest's tap by our doing (ASCII ``vmns``); they leave without it."""

SETUP: Final = 0x766D6E66
"""skb->mark of frames that have a switch set up its flows (ASCII ``vmnf``); no gate lets one pass."""

PARKED: Final = 0x766D6E70
"""skb->mark of frames that a gate sends into a park (ASCII ``vmnp``)."""

_TC_UNSPEC, _TC_SHOT = -1, 2
_REDIRECT = 23  # BPF_FUNC_redirect
# struct __sk_buff (linux/bpf.h)
SKB_LEN, SKB_MARK, SKB_PROTOCOL, SKB_VLAN_PRESENT, SKB_DATA, SKB_DATA_END = 0, 8, 16, 20, 76, 80


class Mode(IntEnum):
    PASS = 0
    BLOCK = 1
    HOLD = 2
    CLOSE = 3
    DIVERT = 4
    SLOW = 5
    """A router's port only: everything goes to the VM, which forwards it itself."""


class Word(IntEnum):
    """Byte offsets of the shared memory's 64-bit words."""

    MODE = 0
    PARK_IFINDEX = 8
    EXIT_IFINDEX = 16
    PARKED = 24
    RELEASED = 32
    PARKED_BYTES = 40
    RELEASED_BYTES = 48
    MAX_PACKETS = 56
    MAX_BYTES = 64
    OVERFLOW = 72
    PASSED = 80
    DIVERTED = 88
    BLOCKED = 96
    TUNNELLED = 104
    TUNNELLED_BYTES = 112
    BOUNDED = 120
    REFLECTED = 128
    DROP_GROUP = 136
    TAP_IFINDEX = 144
    """Of a stand-in's, and of a router's port."""
    # a router's port only (split_program)
    TALK = 152
    LINK_IFINDEX = 160
    CONTROL = 168
    NO_TAP = 176
    MUTED = 184
    PATIENCE = 192
    PROLONGED = 200
    EXITED = 208
    """At the destination: frames that came out of the tunnel, whatever became of them."""
    SET_UP = 216
    """At the destination: setup frames that the host's switch has brought here."""


_SOURCE_AT: Final = 6
SHARED_BYTES: Final = 224


def increment(code: Program, word: Word) -> None:
    code.mov(R3, 1)
    code.atomic_add(R7, word, R3)


def finish(code: Program, verdict: int) -> None:
    code.mov(R0, verdict)
    code.exit()


def redirect(code: Program, word: Word) -> None:
    code.load(DW, R1, R7, word)
    code.mov(R2, 0)
    code.call(_REDIRECT)
    code.exit()


def _over_limit(
    code: Program, used: Word, given_back: Word | None, limit: Word, size_register: int | None
) -> None:
    """Jump to ``overflow`` if used - given_back + size > limit (size: a register, or one packet)."""
    code.load(DW, R3, R7, used)
    if given_back is not None:
        code.load(DW, R4, R7, given_back)
        code.alu_reg("sub", R3, R4)
    if size_register is None:
        code.alu("add", R3, 1)
    else:
        code.alu_reg("add", R3, size_register)
    code.load(DW, R4, R7, limit)
    code.jump_if_reg("gt", R3, R4, "overflow")


def gate_code(map_fd: int) -> bytes:
    """The program for a tap's egress; ``map_fd`` is the shared array of :data:`SHARED_BYTES`."""
    code = Program()
    begin(code, map_fd)
    code.load(W, R2, R6, SKB_MARK)
    code.jump_if("eq", R2, MARK, "marked")
    code.jump_if("eq", R2, SETUP, "setup")
    code.load(DW, R5, R7, Word.MODE)
    code.jump_if("eq", R5, Mode.DIVERT, "divert")
    lane(code)
    code.label("setup")
    increment(code, Word.SET_UP)
    finish(code, _TC_SHOT)
    return code.assemble()


def outgoing_code(map_fd: int) -> bytes:
    """The program for a tap's ingress, that holds what the guest sends. What we say in its place passes, and is unmarked."""
    code = Program()
    begin(code, map_fd)
    code.load(W, R2, R6, SKB_MARK)
    code.jump_if("eq", R2, SAID, "said")
    code.jump_if("eq", R2, MARK, "marked")
    code.load(DW, R5, R7, Word.MODE)
    lane(code)
    code.label("said")
    _mark(code, 0)
    finish(code, _TC_UNSPEC)
    return code.assemble()


def stand_in_code(map_fd: int, guest_mac: bytes) -> bytes:
    """The program for a stand-in's egress: frames for the guest go as at its tap, but none to the device; all others end.

    What would go to the guest goes to ``tap_ifindex``, past whose gate it comes; 0: it ends, for it was flooded to the tap as well.
    """
    code = Program()
    begin(code, map_fd)
    code.load(W, R2, R6, SKB_MARK)
    code.jump_if("eq", R2, MARK, "marked")
    code.jump_if("eq", R2, SETUP, "drop")
    _header_in_r2(code)
    _compare_address(code, 0, guest_mac, "for the guest")
    code.jump("drop")
    code.label("for the guest")
    code.load(DW, R5, R7, Word.MODE)
    code.jump_if("eq", R5, Mode.DIVERT, "divert")
    lane(code, _to_tap)
    return code.assemble()


def _to_tap(code: Program) -> None:
    code.load(DW, R3, R7, Word.TAP_IFINDEX)
    code.jump_if("eq", R3, 0, "drop")
    redirect(code, Word.TAP_IFINDEX)


def begin(code: Program, map_fd: int) -> None:
    """R6: the frame's context; R7: the shared memory; R8: the frame's length in bytes."""
    code.mov_reg(R6, R1)
    code.map_value(R7, map_fd)
    code.load(W, R8, R6, SKB_LEN)


def _let_pass(code: Program) -> None:
    increment(code, Word.PASSED)
    finish(code, _TC_UNSPEC)


def lane(code: Program, let_pass: Callable[[Program], None] = _let_pass) -> None:
    """What the mode in R5 means for an unmarked frame; "marked" and "divert" are labels to jump to instead."""
    code.jump_if("eq", R5, Mode.HOLD, "hold")
    code.jump_if("eq", R5, Mode.CLOSE, "close")
    code.jump_if("eq", R5, Mode.BLOCK, "block")
    code.label("pass")
    let_pass(code)
    code.label("block")
    increment(code, Word.BLOCKED)
    code.label("drop")
    finish(code, _TC_SHOT)
    code.label("close")
    code.load(DW, R3, R7, Word.RELEASED)
    code.load(DW, R4, R7, Word.PARKED)
    code.jump_if_reg("lt", R3, R4, "hold")
    code.load(DW, R3, R7, Word.EXIT_IFINDEX)
    code.jump_if("eq", R3, 0, "pass")
    code.label("divert")
    _drop_group_if_told(code)
    increment(code, Word.DIVERTED)
    redirect(code, Word.EXIT_IFINDEX)
    code.label("hold")
    _over_limit(code, Word.PARKED, Word.RELEASED, Word.MAX_PACKETS, None)
    _over_limit(code, Word.PARKED_BYTES, Word.RELEASED_BYTES, Word.MAX_BYTES, R8)
    increment(code, Word.PARKED)
    code.atomic_add(R7, Word.PARKED_BYTES, R8)
    _mark(code, PARKED)
    redirect(code, Word.PARK_IFINDEX)
    code.label("overflow")
    increment(code, Word.OVERFLOW)
    finish(code, _TC_SHOT)
    code.label("marked")
    code.load(DW, R5, R7, Word.BOUNDED)
    code.jump_if("eq", R5, 0, "tunnelled")
    _over_limit(code, Word.TUNNELLED, None, Word.MAX_PACKETS, None)
    _over_limit(code, Word.TUNNELLED_BYTES, None, Word.MAX_BYTES, R8)
    code.label("tunnelled")
    increment(code, Word.TUNNELLED)
    code.atomic_add(R7, Word.TUNNELLED_BYTES, R8)
    finish(code, _TC_UNSPEC)


def exit_code(map_fd: int, tap_ifindex: int, guest_mac: bytes) -> bytes:
    """The program on the tunnel's ingress at the destination: mark the frame and hand it to the guest's tap.

    Three kinds are dropped. A fence, which has shown at the source what it had to show. A frame with the guest's own source address
    has gone round through the fabric and the old host: it is an announcement come back (the end marker), and a guest that heard
    itself would take it for a duplicate of its address. And, once ``DROP_GROUP`` is set, broadcast and multicast, which now arrive
    directly too.
    """
    code = Program()
    code.mov_reg(R6, R1)
    code.map_value(R7, map_fd)
    increment(code, Word.EXITED)
    _header_in_r2(code)
    _compare_address(code, _SOURCE_AT, fence.SOURCE, "drop")
    _compare_address(code, _SOURCE_AT, guest_mac, "reflected")
    _drop_group_if_told(code)
    _mark(code, MARK)
    _hand_over(code, tap_ifindex, ingress=False)
    code.label("reflected")
    increment(code, Word.REFLECTED)
    code.label("drop")
    finish(code, _TC_SHOT)
    return code.assemble()


def park_code() -> bytes:
    """The program on a park's egress: what a gate has not sent there ends.

    A program of the host that sends on every interface (a DHCP client, an LLDP daemon) would put a frame among the guest's, and the
    count of those that wait would be wrong.
    """
    code = Program()
    code.load(W, R2, R1, SKB_MARK)
    code.jump_if("eq", R2, PARKED, "ours")
    finish(code, _TC_SHOT)
    code.label("ours")
    finish(code, _TC_UNSPEC)
    return code.assemble()


def _header_in_r2(code: Program) -> None:
    """R2: the Ethernet header; a frame too short to have one goes to ``drop``."""
    code.load(W, R2, R6, SKB_DATA)
    code.load(W, R3, R6, SKB_DATA_END)
    code.mov_reg(R4, R2)
    code.alu("add", R4, 14)
    code.jump_if_reg("gt", R4, R3, "drop")


def _drop_group_if_told(code: Program) -> None:
    """Broadcast and multicast go to ``drop`` once ``DROP_GROUP`` is set: they go another way now."""
    code.load(DW, R5, R7, Word.DROP_GROUP)
    code.jump_if("eq", R5, 0, "any destination")
    _header_in_r2(code)
    code.load(B, R5, R2, 0)
    code.jump_if("set", R5, 1, "drop")
    code.label("any destination")


def _compare_address(code: Program, at: int, mac: bytes, equal: str) -> None:
    """Jump to ``equal`` if the Ethernet address at byte ``at`` of the frame in R2 is ``mac``."""
    if len(mac) != 6:
        raise ValueError(f"a MAC address has 6 bytes, not {len(mac)}")
    other = f"not {mac.hex()}"
    for offset in (0, 2):
        code.load(H, R5, R2, at + offset)
        code.jump_if("ne", R5, struct.unpack_from("<H", mac, offset)[0], other)
    code.load(H, R5, R2, at + 4)
    code.jump_if("eq", R5, struct.unpack_from("<H", mac, 4)[0], equal)
    code.label(other)


def wire_code(port_ifindex: int, ingress: bool, mark: int = 0) -> bytes:
    """Everything that arrives goes to ``port_ifindex``: out of it, or (``ingress``) as if it had come in there. 0: no mark."""
    code = Program()
    if mark:
        code.mov_reg(R6, R1)
        _mark(code, mark)
    _hand_over(code, port_ifindex, ingress)
    return code.assemble()


def _mark(code: Program, mark: int) -> None:
    code.mov(R3, mark)
    code.store(W, R6, SKB_MARK, R3)


def _hand_over(code: Program, ifindex: int, ingress: bool) -> None:
    code.mov(R1, ifindex)
    code.mov(R2, 1 if ingress else 0)
    code.call(_REDIRECT)
    code.exit()
