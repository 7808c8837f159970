"""A flight recorder: the last frames that entered a guest's tap, in a memory-mapped ring, at no cost a frame in Python.

AF_PACKET, TPACKET_V3 (Linux Documentation/networking/packet_mmap.rst). The kernel copies each frame into a block and hands whole
blocks over; we only keep the newest and give the oldest back. A frame is looked at when it turns out to be stranded, never before.
"""

from __future__ import annotations

import ctypes
import mmap
import select
import socket
import struct
from collections import deque
from collections.abc import Iterator
from itertools import islice

from dom0.dataplane import packet_filter
from dom0.dataplane.frames import RecordedFrame
from dom0.dataplane.park import VNET_HEADER_BYTES

_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _PACKET_VNET_HDR = 5, 6, 10, 15
_TPACKET_V3 = 2
_ETH_P_ALL = 3
_libc = ctypes.CDLL(None, use_errno=True)
_BLOCK_BYTES = 1 << 17
_FRAME_BYTES = 2048
RETIRE_MS = 4
LAST_BLOCK_S = 0.02
"""So long after the last frame, at most, all of them have been handed over."""
_STATUS_USER = 1
_STATUS_VLAN_VALID = 1 << 4
_BLOCK_HEADER = struct.Struct("=IIIIII")  # version, private, status, packets, first packet's offset, length
_PACKET_HEADER = struct.Struct("=IIIIIIHHIIHH")
# classic BPF: only what goes out to the guest (skb->pkt_type == PACKET_OUTGOING), whole
_OUTGOING = ((0x28, 0, 0, 0xFFFFF004), (0x15, 0, 1, 4), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0))


class Recorder:
    """Copies what enters ``device`` into a ring of ``ring_bytes``; call :meth:`turn` every few milliseconds.

    ``retire_ms``: how long the kernel waits before it hands over a block that is not full. With little traffic the ring remembers that
    long times its number of blocks.
    """

    def __init__(self, device: str, ring_bytes: int, retire_ms: int = RETIRE_MS) -> None:
        self._blocks = max(8, ring_bytes // _BLOCK_BYTES)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        packet_filter.attach(self._socket, _OUTGOING)
        request = struct.pack(
            "=7I",
            _BLOCK_BYTES,
            self._blocks,
            _FRAME_BYTES,
            self._blocks * (_BLOCK_BYTES // _FRAME_BYTES),
            retire_ms,
            0,
            0,
        )
        _set_ring(self._socket, request)
        self._ring = mmap.mmap(self._socket.fileno(), self._blocks * _BLOCK_BYTES)
        self._next = 0
        self._kept: deque[int] = deque()
        self.total = 0
        """Frames copied so far, in blocks the kernel has handed over."""
        self._socket.bind((device, _ETH_P_ALL))
        # edge-triggered: the socket counts as readable for as long as we keep the newest block
        self._handed_over = select.epoll()
        self._handed_over.register(self._socket.fileno(), select.EPOLLIN | select.EPOLLET)

    def turn(self) -> None:
        """Take the blocks the kernel has filled; give back the oldest, so that a quarter of the ring is always free."""
        while self._status(self._next) & _STATUS_USER:
            self._kept.append(self._next)
            self.total += int(struct.unpack_from("=I", self._ring, self._next * _BLOCK_BYTES + 12)[0])
            self._next = (self._next + 1) % self._blocks
            if len(self._kept) > self._blocks * 3 // 4:
                self._give_back(self._kept.popleft())

    def wait(self, seconds: float) -> None:
        """Until the kernel hands a block over, at most ``seconds``."""
        self._handed_over.poll(seconds)
        self.turn()

    def _status(self, block: int) -> int:
        return int(struct.unpack_from("=I", self._ring, block * _BLOCK_BYTES + 8)[0])

    def _give_back(self, block: int) -> None:
        struct.pack_into("=I", self._ring, block * _BLOCK_BYTES + 8, 0)

    def newest(self) -> Iterator[RecordedFrame]:
        """The recorded frames from the newest to the oldest still kept."""
        self.turn()
        for block in reversed(self._kept):
            yield from reversed(list(self._frames(block)))

    def sample(self, most: int) -> list[RecordedFrame]:
        """The first frames of the newest block, at most so many."""
        return list(islice(self._frames(self._kept[-1]), most)) if self._kept else []

    def _frames(self, block: int) -> Iterator[RecordedFrame]:
        start = block * _BLOCK_BYTES
        _, _, _, packets, offset, _ = _BLOCK_HEADER.unpack_from(self._ring, start)
        position = start + offset
        for _ in range(packets):
            yield self._frame(position)
            (step,) = struct.unpack_from("=I", self._ring, position)
            position += step

    def _frame(self, position: int) -> RecordedFrame:
        _, seconds, nanoseconds, snap, _, status, mac, _, _, tci, tpid, _ = _PACKET_HEADER.unpack_from(
            self._ring, position
        )
        begin = position + mac
        header = self._ring[begin - VNET_HEADER_BYTES : begin]
        frame = self._ring[begin : begin + snap]
        if status & _STATUS_VLAN_VALID:
            frame = frame[:12] + struct.pack("!HH", tpid or 0x8100, tci & 0xFFFF) + frame[12:]
        return RecordedFrame(seconds * 1_000_000_000 + nanoseconds, header + frame)

    def lost(self) -> int:
        """Frames the ring had no room for since the last call (the kernel resets the count)."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        return int(struct.unpack("=III", raw)[1])

    def close(self) -> None:
        self._handed_over.close()
        self._ring.close()
        self._socket.close()


def _set_ring(to: socket.socket, request: bytes) -> None:
    """The kernel waits for its readers here (RCU), some 20 ms; ``socket.setsockopt`` would hold up all of Python meanwhile."""
    if _libc.setsockopt(to.fileno(), _SOL_PACKET, _PACKET_RX_RING, request, len(request)):
        raise OSError(ctypes.get_errno(), "cannot make a packet ring")
