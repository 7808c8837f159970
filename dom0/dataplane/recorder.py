"""A flight recorder: the last frames that entered a guest's tap, in a memory-mapped ring, at no cost a frame in Python.

AF_PACKET, TPACKET_V3 (Linux Documentation/networking/packet_mmap.rst). The kernel copies each frame into a block and hands whole
blocks over; we only keep the newest and give the oldest back. A frame is looked at when it turns out to be stranded, never before.

A block is handed over after some ms, however few frames it has: at 100 packets/s a ring of 16 MiB would remember 95. So a block
that is not nearly full is copied, and its place in the ring given back at once; one that is stays where it is.
"""

from __future__ import annotations

import ctypes
import mmap
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, repeat

from dom0.dataplane import packet_filter
from dom0.dataplane.frames import NOT_COPIED, RecordedFrame
from dom0.dataplane.park import VNET_HEADER_BYTES

_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _PACKET_VNET_HDR = 5, 6, 10, 15
_TPACKET_V3 = 2
_ETH_P_ALL = 3
_libc = ctypes.CDLL(None, use_errno=True)
_BLOCK_BYTES = 1 << 17
_FULL_BYTES = _BLOCK_BYTES * 7 // 8
"""A block with more than this stays in the ring."""
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


@dataclass
class _Block:
    """``where``: a block as the kernel made it, in a memory from an offset on; ``place`` in the ring, None once it was copied out.

    ``uncopied``: frames before it that the ring had no room for.
    """

    where: tuple[mmap.mmap | bytes, int]
    length: int
    place: int | None
    uncopied: int


class Recorder:
    """Copies what enters ``device`` into a ring of ``ring_bytes``; call :meth:`turn` every few milliseconds.

    It remembers at least three quarters of ``ring_bytes`` of frames, and takes at most twice ``ring_bytes`` of memory.

    ``retire_ms``: how long the kernel waits before it hands over a block that is not full.
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
        self._turning = threading.Lock()
        self._next = 0
        self._kept: deque[_Block] = deque()
        """Oldest first; what is forgotten is the oldest, so there is no gap that does not show."""
        self._in_ring: dict[int, _Block] = {}
        """By place: the kernel stops where it finds one, so none is among the quarter of the places that come next."""
        self._out_bytes = 0
        """Of the blocks that were copied out."""
        self._uncopied_since = 0
        """Frames that the ring had no room for since the newest block that is kept."""
        self.total = 0
        """Frames copied so far, in blocks the kernel has handed over."""
        self.uncopied = 0
        """Frames that the ring had no room for so far, as known at the last :meth:`turn`."""
        self.forgot = False
        """Some of what has come is no longer kept."""
        self._socket.bind((device, _ETH_P_ALL))
        # edge-triggered: the socket counts as readable for as long as we keep the newest block
        self._handed_over = select.epoll()
        self._handed_over.register(self._socket.fileno(), select.EPOLLIN | select.EPOLLET)

    def turn(self) -> None:
        """Take the blocks the kernel has filled; forget the oldest, so that a quarter of the ring is always free. Any thread may."""
        with self._turning:
            while self._status(self._next) & _STATUS_USER:
                self._take(self._next)
                self._next = (self._next + 1) % self._blocks
                self._make_room()
            self._count_uncopied()

    def _make_room(self) -> None:
        while len(self._in_ring) > self._blocks * 3 // 4 or self._out_bytes > self._blocks * _BLOCK_BYTES:
            self._forget(self._kept.popleft())
        if stands := self._in_ring.get((self._next + self._blocks // 4 - 1) % self._blocks):
            self._copy_out(stands)

    def _take(self, place: int) -> None:
        """Of a block that the kernel has handed over."""
        start = place * _BLOCK_BYTES
        _, _, _, packets, _, length = _BLOCK_HEADER.unpack_from(self._ring, start)
        self.total += packets
        block = _Block((self._ring, start), length, place, self._uncopied_since)
        self._uncopied_since = 0
        self._kept.append(block)
        self._in_ring[place] = block
        if length <= _FULL_BYTES:
            self._copy_out(block)

    def _copy_out(self, block: _Block) -> None:
        start = block.where[1]
        block.where = (self._ring[start : start + block.length], 0)
        self._out_bytes += block.length
        self._give_back(block)

    def _forget(self, block: _Block) -> None:
        self.forgot = True
        if block.place is None:
            self._out_bytes -= block.length
        else:
            self._give_back(block)

    def wait(self, seconds: float) -> None:
        """Until the kernel hands a block over, at most ``seconds``."""
        self._handed_over.poll(seconds)
        self.turn()

    def _status(self, block: int) -> int:
        return int(struct.unpack_from("=I", self._ring, block * _BLOCK_BYTES + 8)[0])

    def _give_back(self, block: _Block) -> None:
        assert block.place is not None
        struct.pack_into("=I", self._ring, block.place * _BLOCK_BYTES + 8, 0)
        del self._in_ring[block.place]
        block.place = None

    def newest(self) -> Iterator[RecordedFrame]:
        """The recorded frames from the newest to the oldest still kept; without ``data`` those that the ring had no room for."""
        self.turn()
        with self._turning:
            uncopied, kept = self._uncopied_since, tuple(self._kept)
        yield from repeat(NOT_COPIED, uncopied)
        for block in reversed(kept):
            yield from reversed(list(_frames(block)))
            yield from repeat(NOT_COPIED, block.uncopied)

    def sample(self, most: int) -> list[RecordedFrame]:
        """The first frames of the newest block, at most so many."""
        return list(islice(_frames(self._kept[-1]), most)) if self._kept else []

    def _count_uncopied(self) -> None:
        """Frames find no room when all blocks have been filled: they come after those."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)  # the kernel resets the count
        uncopied = int(struct.unpack("=III", raw)[1])
        self.uncopied += uncopied
        self._uncopied_since += uncopied

    def close(self) -> None:
        self._handed_over.close()
        self._ring.close()
        self._socket.close()


def _frames(block: _Block) -> Iterator[RecordedFrame]:
    memory, start = block.where
    _, _, _, packets, offset, _ = _BLOCK_HEADER.unpack_from(memory, start)
    position = start + offset
    for _ in range(packets):
        yield _frame(memory, position)
        (step,) = struct.unpack_from("=I", memory, position)
        position += step


def _frame(memory: mmap.mmap | bytes, position: int) -> RecordedFrame:
    _, seconds, nanoseconds, snap, _, status, mac, _, _, tci, tpid, _ = _PACKET_HEADER.unpack_from(
        memory, position
    )
    begin = position + mac
    header = memory[begin - VNET_HEADER_BYTES : begin]
    frame = memory[begin : begin + snap]
    if status & _STATUS_VLAN_VALID:
        frame = frame[:12] + struct.pack("!HH", tpid or 0x8100, tci & 0xFFFF) + frame[12:]
    return RecordedFrame(seconds * 1_000_000_000 + nanoseconds, header + frame)


def _set_ring(to: socket.socket, request: bytes) -> None:
    """The kernel waits for its readers here (RCU), some 20 ms; ``socket.setsockopt`` would hold up all of Python meanwhile."""
    if _libc.setsockopt(to.fileno(), _SOL_PACKET, _PACKET_RX_RING, request, len(request)):
        raise OSError(ctypes.get_errno(), "cannot make a packet ring")
