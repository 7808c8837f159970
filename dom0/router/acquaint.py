"""The namespace gets to know the neighbours to which the VM sends just now, before it sends to them itself.

A kernel that does not know a neighbour lets packets for it wait while it asks, some 200 of them, and drops the rest; and one that
comes in the moment of the answer may overtake those (``neigh_update``, net/core/neighbour.c).
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing

from dom0.dataplane.listener import Listener, source_filter
from dom0.fib import dump, neighbour
from dom0.fib.kernel import Kernel, open_socket
from dom0.fib.message import (
    GETNEIGH,
    GETROUTE,
    NEWNEIGH,
    NEWROUTE,
    REQUEST,
    U32,
    attribute,
    attributes,
    family_of,
    message,
    split,
)
from dom0.fib.neighbour import Neighbour
from dom0.fib.route import DST, GATEWAY, OIF, RTMSG, VIA
from dom0.router.port import RouterPort

_LISTENS_S, _ANSWERS_S = 0.25, 0.25
_MOST_FRAMES, _MOST_DESTINATIONS = 20_000, 1024
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_UNICAST, _TYPE_AT = 1, 7  # rtm_type of struct rtmsg
_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NEIGHBOURS = 270, 1, 3  # linux/netlink.h, RTNLGRP_NEIGH


def acquaint(netns: str, ports: Sequence[RouterPort]) -> list[Neighbour]:
    """Who has not answered. Takes 0.25 s, with unanswered questions 0.5 s; call it in a thread. OSError if the kernel refuses.

    The VM runs and forwards behind ``ports``; what neighbours answer must reach the namespace.
    """
    with ExitStack() as stack:
        heard = [
            stack.enter_context(closing(Listener(port.tap, source_filter(port.interface.mac))))
            for port in ports
            if port.tap is not None
        ]
        destinations = _destinations(heard)
    with closing(open_socket(netns)) as kernel:
        wanted = {hop for one in destinations if (hop := _next_hop(kernel, one)) is not None}
    return _ask(netns, wanted)


def destination(frame: bytes) -> bytes | None:
    """Packed; None for all but an untagged IP packet to one station."""
    if frame[:1] and frame[0] & 1:
        return None
    if frame[12:14] == _IPV4 and len(frame) >= 34:
        return frame[30:34]
    return frame[38:54] if frame[12:14] == _IPV6 and len(frame) >= 54 else None


def _destinations(listeners: Sequence[Listener]) -> set[bytes]:
    found: set[bytes] = set()
    seen, deadline = 0, time.monotonic() + _LISTENS_S
    waiter = select.poll()
    for one in listeners:
        waiter.register(one.fd, select.POLLIN)
    while (
        (left_s := deadline - time.monotonic()) > 0
        and seen < _MOST_FRAMES
        and len(found) < _MOST_DESTINATIONS
    ):
        waiter.poll(left_s * 1000)
        for frame in (frame for one in listeners for frame in one.drain()):
            seen += 1
            if (to := destination(frame)) is not None:
                found.add(to)
    return found


def _next_hop(kernel: socket.socket, to: bytes) -> Neighbour | None:
    """As the namespace's own table says; None where it leads nowhere."""
    body = RTMSG.pack(family_of(to), 8 * len(to), 0, 0, 0, 0, 0, 0, 0) + attribute(DST, to)
    kernel.send(message(GETROUTE, REQUEST, body))
    said = kernel.recv(1 << 16)
    if U32.unpack_from(said, 4)[0] & 0xFFFF != NEWROUTE or said[16 + _TYPE_AT] != _UNICAST:
        return None
    found = dict(attributes(said, 16 + RTMSG.size))
    via = found[VIA][2:] if VIA in found else found.get(GATEWAY, to)
    return Neighbour(struct.unpack("=i", found[OIF])[0], via) if OIF in found else None


def _ask(netns: str, wanted: set[Neighbour]) -> list[Neighbour]:
    """Who has not answered in time."""
    unknown = set(wanted)
    with closing(open_socket(netns)) as events, closing(Kernel(netns)) as kernel:
        events.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NEIGHBOURS)
        unknown -= _known(one for piece in dump.pieces(netns, GETNEIGH, 0) for one in piece)
        kernel.send([neighbour.ask(one) for one in sorted(unknown)])
        deadline = time.monotonic() + _ANSWERS_S
        while unknown and (left_s := deadline - time.monotonic()) > 0:
            events.settimeout(left_s)
            try:
                unknown -= _known(split(events.recv(1 << 16)))
            except TimeoutError:
                break
    return sorted(unknown)


def _known(messages: Iterable[bytes]) -> set[Neighbour]:
    kinds = ((U32.unpack_from(one, 4)[0] & 0xFFFF, one) for one in messages)
    return {found for kind, one in kinds if kind == NEWNEIGH and (found := neighbour.known(one)) is not None}
