"""When this host had no link-layer address for its way to the target: it gives up on one that is silent for some eight seconds.

Its own kernel then drops what is sent there (RFC 4861, section 7.3; Linux: 5 s, then three probes a second apart), and no network has
lost it. The kernel tells of each change of a neighbour's state (rtnetlink(7), RTMGRP_NEIGH).
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

_GROUP: Final = 0x4  # RTMGRP_NEIGH, linux/rtnetlink.h
_NEW, _DELETED = 28, 29
_HEADER, _NDMSG = struct.Struct("=IHHII"), struct.Struct("=BxxxiHBB")
_DESTINATION: Final = 1  # NDA_DST
_NO_ADDRESS: Final = 0x01 | 0x20  # NUD_INCOMPLETE, NUD_FAILED
_ASK_S: Final = 5.0
_WAKE_S: Final = 0.2

Period = tuple[int, int]
"""From, to: ns since the epoch."""


class NeighbourWatch:
    """``target``: an address. Listens until :meth:`close`. OSError if the kernel does not let it."""

    def __init__(self, target: str) -> None:
        self._periods: list[Period] = []
        self._since_ns: int | None = None
        self._next_hop = ip_address(next_hop(target)).packed
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUP))
        self._socket.settimeout(_WAKE_S)
        self._closed = False
        self._thread = threading.Thread(target=self._listen, daemon=True, name="neighbours")
        self._thread.start()

    def _listen(self) -> None:
        while not self._closed:
            try:
                data = self._socket.recv(65536)
            except OSError:  # nothing came; or more than we took, and some changes are not known
                continue
            for state in states_of(data, self._next_hop):
                self.note(state, time.time_ns())

    def note(self, state: int, now_ns: int) -> None:
        """``state``: a combination of the kernel's ``NUD_*``, 0 for a neighbour that was removed."""
        if state & _NO_ADDRESS:
            self._since_ns = self._since_ns or now_ns
        elif state and self._since_ns is not None:
            self._periods.append((self._since_ns, now_ns))
            self._since_ns = None

    def periods(self, end_ns: int) -> list[Period]:
        """Those until ``end_ns``."""
        last = [(self._since_ns, end_ns)] if self._since_ns is not None else []
        return [*self._periods, *last]

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        self._socket.close()


def next_hop(target: str) -> str:
    """The neighbour to which packets for ``target`` go; ``target`` itself if the kernel does not say."""
    asked = subprocess.run(
        ["ip", "-json", "route", "get", target], capture_output=True, text=True, timeout=_ASK_S, check=False
    )
    try:
        return str(json.loads(asked.stdout)[0].get("gateway", target))
    except (ValueError, IndexError):
        return target


def states_of(data: bytes, address: bytes) -> list[int]:
    """Of a datagram of rtnetlink: the states that it tells of the neighbour with that packed address, in order. Pure."""
    states = []
    offset = 0
    while offset + _HEADER.size + _NDMSG.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            break
        body = data[offset + _HEADER.size : offset + length]
        if kind in (_NEW, _DELETED) and _destination(body) == address:
            states.append(_NDMSG.unpack_from(body)[2] if kind == _NEW else 0)
        offset += (length + 3) & ~3
    return states


def _destination(body: bytes) -> bytes:
    offset = _NDMSG.size
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            break
        if kind == _DESTINATION:
            return body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return b""


def sent_within(missing: Sequence[tuple[int, int]], sent_ns: Sequence[int], periods: Sequence[Period]) -> int:
    """Of the lost packets, ranges of their numbers, how many were sent in one of ``periods``. Pure."""
    lost = (number for first, last in missing for number in range(first, min(last + 1, len(sent_ns))))
    return sum(any(begin <= sent_ns[number] <= end for begin, end in periods) for number in lost)
