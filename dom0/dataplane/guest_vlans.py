"""In which VLANs a guest sends with its own MAC address: an ordinary Linux bridge passes tags on, and does not learn by them.

The kernel hands each VLAN up once only: what is known already is left out by the filter (classic BPF, Linux
``Documentation/networking/filter.rst``).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from typing import Final

from dom0.dataplane import packet_filter
from dom0.dataplane.packet_filter import (
    AND,
    JEQ,
    LD,
    LDH,
    OUTGOING,
    PACKET_TYPE,
    RET,
    TAG,
    TAG_PRESENT,
    Filter,
)

MOST_VLANS: Final = 64
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_VLAN_VALID = 0x10  # TP_STATUS_VLAN_VALID
_AUXDATA = struct.Struct("=IIIHHHH")
_VLAN_MASK = 0xFFF
_HEADER_BYTES = 64


def tag_filter(mac: bytes, known: Collection[int]) -> Filter:
    """Frames from ``mac`` with a tag of a VLAN that is not in ``known`` (at most 64), as they come from the guest. Pure."""
    high, low = struct.unpack("!IH", mac)
    vlans = sorted(known)
    checks = [
        (LDH, 0, 0, PACKET_TYPE),
        (JEQ, 1, 0, OUTGOING),
        (LD, 0, 0, TAG_PRESENT),
        (JEQ, 1, 0, 0),
        (LD, 0, 0, 6),
        (JEQ, 0, 1, high),
        (LDH, 0, 0, 10),
        (JEQ, 0, 1, low),
        (LDH, 0, 0, TAG),
        (AND, 0, 0, _VLAN_MASK),
        *((JEQ, 1, 0, one) for one in vlans),
    ]
    end = len(checks) + 1
    return (
        *(_to(end, at, one) for at, one in enumerate(checks)),
        (RET, 0, 0, _HEADER_BYTES),
        (RET, 0, 0, 0),
    )


def _to(reject: int, at: int, instruction: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """With a jump that is marked by 1 leading to the last instruction."""
    code, if_true, if_false, constant = instruction
    distance = reject - at - 1
    return code, if_true and distance, if_false and distance, constant


class VlanWatch:
    """On a guest's tap; call :meth:`turn` now and then. OSError if the tap is gone."""

    def __init__(self, tap: str, mac: bytes) -> None:
        self._mac = mac
        self._found: set[int] = set()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            packet_filter.attach(self._socket, tag_filter(mac, ()))
            self._socket.bind((tap, _ETH_P_ALL))
        except OSError:
            self._socket.close()
            raise

    def turn(self) -> frozenset[int]:
        """Those seen by now, at most 64; 0, a mere priority (IEEE 802.1Q, clause 9.6), is none. Does not block."""
        before = len(self._found)
        while len(self._found) < MOST_VLANS and (vlan := self._next()) is not None:
            self._found.add(vlan)
        if len(self._found) > before:
            packet_filter.attach(self._socket, tag_filter(self._mac, self._found))
        return frozenset(self._found - {0})

    def _next(self) -> int | None:
        try:
            _frame, auxiliary, _flags, _from = self._socket.recvmsg(_HEADER_BYTES, 64)
        except OSError:  # nothing more, or the device has gone
            return None
        for level, kind, data in auxiliary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
                status, *_others, tag, _protocol = _AUXDATA.unpack_from(data)
                if status & _VLAN_VALID:
                    return int(tag) & _VLAN_MASK
        return 0

    def close(self) -> None:
        self._socket.close()
