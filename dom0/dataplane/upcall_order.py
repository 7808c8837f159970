"""Sends what a guest's frames waited for, so that none overtakes the first of its flow in an Open vSwitch in the kernel.

Its datapath hands the first frame of a flow that it does not know to ovs-vswitchd (an upcall). ovs-vswitchd sets the flow up, and
sends the frame on afterwards; what comes in between goes straight on, and is first. So the second frame of a flow waits until the
first has left the switch. A packet socket sees that: every port of the switch is a network device, also those of its tunnels.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Collection
from typing import Final

from dom0.dataplane import netdev, packet_filter
from dom0.dataplane.flow_key import KEY_BYTES, flow_key
from dom0.dataplane.packet_filter import DEVICE, JEQ, LD, LDH, OUTGOING, RET, Filter
from dom0.dataplane.park import VNET_HEADER_BYTES
from dom0.dataplane.pump import Exit

LIMIT_S: Final = 0.02
"""So long all the waits may be together. An upcall takes a fraction of a millisecond; a frame that the switch drops never leaves."""
_ETH_P_ALL: Final = 3
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_BYTES: Final = 4 << 20
_MOST_FLOWS: Final = 4096
_MOST_FRAMES: Final = 4096


def leaving_filter(mac: bytes, inside: Collection[int]) -> Filter:
    """Frames from ``mac`` on any device but those ``inside``, by index: their first :data:`KEY_BYTES`."""
    high, low = int.from_bytes(mac[:4]), int.from_bytes(mac[4:])
    others = [(JEQ, len(inside) - at + 4, 0, index) for at, index in enumerate(inside)]
    return (
        (LD, 0, 0, DEVICE),
        *others,
        (LD, 0, 0, 6),
        (JEQ, 0, 3, high),
        (LDH, 0, 0, 10),
        (JEQ, 0, 1, low),
        (RET, 0, 0, KEY_BYTES),
        (RET, 0, 0, 0),
    )


class Leaving:
    """The guest's frames that leave the switch: by any of its ports, or into a device of the host's own (an internal port).

    ``inside``: devices before the switch. ``ports``: names of the switch's ports, but for the internal ones: what comes in there from
    outside has not left.
    """

    def __init__(self, mac: bytes, inside: Collection[str], ports: Collection[str]) -> None:
        self._ports = frozenset(ports)
        protocol = socket.htons(_ETH_P_ALL)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
            packet_filter.attach(
                self._socket, leaving_filter(mac, [netdev.index_of(name) for name in inside])
            )
        except OSError:
            self._socket.close()
            raise
        self.seen()  # what had come before the filter was there

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def seen(self) -> set[bytes]:
        """Keys of the flows of which a frame has left since the last call."""
        found: set[bytes] = set()
        for _ in range(_MOST_FRAMES):
            try:
                frame, (device, _, kind, *_) = self._socket.recvfrom(KEY_BYTES)
            except OSError:  # none is left
                break
            if kind == OUTGOING or device not in self._ports:
                found.add(flow_key(frame))
        return found

    def close(self) -> None:
        self._socket.close()


class UpcallOrder:
    """An exit of a park (:class:`dom0.dataplane.pump.Exit`) in front of ``to``, which hands frames to the switch."""

    def __init__(
        self,
        to: Exit,
        leaving: Leaving,
        limit_s: float = LIMIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._to, self._leaving, self._clock = to, leaving, clock
        self._left_s = limit_s
        self._under_way: set[bytes] = set()
        self._known: set[bytes] = set()
        self._unseen: set[bytes] = set()
        """Flows of which a frame went on although the first had not been seen to leave."""
        self._late: set[bytes] = set()
        """Those of them of which frames have left since."""
        self._poll = select.poll()
        self._poll.register(leaving.fd, select.POLLIN)

    def send(self, frame: bytes) -> None:
        """``frame`` starts with its offload header. Blocks, for the limit at most."""
        key = flow_key(frame[VNET_HEADER_BYTES : VNET_HEADER_BYTES + KEY_BYTES])
        if key in self._under_way:
            self._wait({key})
        elif key not in self._known and len(self._under_way) < _MOST_FLOWS:
            self._under_way.add(key)
        self._to.send(frame)

    def settle(self) -> None:
        """Wait until the first frame of each flow has left, as far as the limit allows: soon nothing waits any more."""
        self._wait(set(self._under_way))

    @property
    def unsure(self) -> bool:
        """Frames went on behind a first one that had not been seen to leave: ask :meth:`overtaken` later."""
        return bool(self._unseen)

    def _wait(self, flows: set[bytes]) -> None:
        self._look()
        begin = now = self._clock()
        while flows & self._under_way and now - begin < self._left_s:
            self._poll.poll(1000 * (self._left_s - (now - begin)))
            self._look()
            now = self._clock()
        self._left_s = max(0.0, self._left_s - (now - begin))
        given_up = flows & self._under_way
        self._under_way -= given_up
        self._unseen |= given_up
        self._known |= given_up

    def _look(self) -> None:
        seen = self._leaving.seen()
        self._late |= seen & self._unseen
        self._known |= seen & self._under_way
        self._under_way -= seen

    def overtaken(self) -> bool:
        """Whether a frame may have been overtaken: its flow was not set up in time, and has been since. Ask a second later.

        A flow whose frames the switch drops has none that leave, and no order.
        """
        self._look()
        return bool(self._late)

    def close(self) -> None:
        self._leaving.close()
