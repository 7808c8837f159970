"""Many packets a system call (``recvmmsg``, ``sendmmsg``) into and out of buffers made once: no Python work for a packet received.

Python has neither call; the C library has both, reached by ctypes. x86-64 and arm64 Linux (64-bit ``struct msghdr``).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from array import array

from vmnet.probe import wire

SO_TIMESTAMPNS = 35
SO_MEMINFO = 55
_MEMINFO_DROPS = 8
_STAMP = struct.Struct("@qiiqq")  # cmsghdr, then timespec: what SO_TIMESTAMPNS puts beside each packet
_PASSING = {
    errno.EAGAIN,
    errno.EINTR,
    errno.ENOBUFS,
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EPERM,
}


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("hdr", _Msghdr), ("len", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)


def _headers(
    slots: int, data: bytearray, length: int, control: bytearray | None
) -> tuple[ctypes.Array[_Mmsghdr], object]:
    """Message headers over slices of ``data`` (and of ``control``); the second value keeps their memory alive."""
    iovecs = (_Iovec * slots)()
    messages = (_Mmsghdr * slots)()
    base = ctypes.addressof(ctypes.c_char.from_buffer(data))
    beside = ctypes.addressof(ctypes.c_char.from_buffer(control)) if control is not None else 0
    for i in range(slots):
        iovecs[i] = _Iovec(base + i * length, length)
        header = messages[i].hdr
        header.iov, header.iovlen = ctypes.addressof(iovecs[i]), 1
        if control is not None:
            header.control, header.controllen = beside + i * _STAMP.size, _STAMP.size
    return messages, iovecs


def _passing(call: str) -> None:
    """A connected UDP socket hands on ICMP errors and full queues; those pass. Anything else is raised."""
    number = ctypes.get_errno()
    if number not in _PASSING:
        raise OSError(number, f"{call}: {os.strerror(number)}")


class Receiver:
    """Collects every packet's first ``DATA_LEN`` bytes in ``records`` and its time stamp; packets are decoded afterwards."""

    def __init__(self, sock: socket.socket, slots: int = 512) -> None:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.records = bytearray()
        self._stamps = bytearray()
        self._fd = sock.fileno()
        self._slots = slots
        self._data = bytearray(slots * wire.DATA_LEN)
        self._control = bytearray(slots * _STAMP.size)
        self._messages, self._keep = _headers(slots, self._data, wire.DATA_LEN, self._control)

    def read(self) -> None:
        """Takes all that waits in the socket; never blocks."""
        got = self._slots
        while got == self._slots:
            got = _libc.recvmmsg(self._fd, self._messages, self._slots, socket.MSG_DONTWAIT, None)
            if got <= 0:
                _passing("recvmmsg")
                return
            self.records += memoryview(self._data)[: got * wire.DATA_LEN]
            self._stamps += memoryview(self._control)[: got * _STAMP.size]

    def __len__(self) -> int:
        return len(self.records) // wire.DATA_LEN

    def last(self) -> bytes:
        return bytes(self.records[-wire.DATA_LEN :])

    def times(self) -> array[int]:
        """Each packet's arrival as the kernel stamped it, nanoseconds."""
        return array("q", (s * 1_000_000_000 + ns for *_, s, ns in _STAMP.iter_unpack(self._stamps)))


class Sender:
    """Sends runs of numbered DATA packets from one buffer."""

    def __init__(self, sock: socket.socket, session: int, length: int, slots: int = 128) -> None:
        self._fd = sock.fileno()
        self._slots = slots
        self._length = length
        self._data = bytearray(wire.data(session, 0, length) * slots)
        self._messages, self._keep = _headers(slots, self._data, length, None)
        self._numbers = [i * length + 6 for i in range(slots)]

    def send(self, seq: int, count: int) -> int:
        """Sends packets ``seq`` onwards, ``count`` of them at most; how many went."""
        count = min(count, self._slots)
        pack, data = _SEQ.pack_into, self._data
        for offset in self._numbers[:count]:
            pack(data, offset, seq)
            seq += 1
        went: int = _libc.sendmmsg(self._fd, self._messages, count, socket.MSG_DONTWAIT)
        if went < 0:
            _passing("sendmmsg")
            return 0
        return went

    def send_due(self, sent_ns: array[int], due: int) -> None:
        """Sends until ``due`` packets have gone, or the queue is full; ``sent_ns`` grows by when each went (Unix clock, ns)."""
        seq = len(sent_ns)
        while seq < due:
            now = time.time_ns()
            went = self.send(seq, due - seq)
            if not went:
                return
            sent_ns.extend([now] * went)
            seq += went

    def repeat(self) -> int:
        """Sends the whole buffer once more, whatever its numbers are; how many packets went."""
        went: int = _libc.sendmmsg(self._fd, self._messages, self._slots, 0)
        if went < 0:
            _passing("sendmmsg")
            return 0
        return went


_SEQ = struct.Struct("!I")


def big_buffers(sock: socket.socket, size: int) -> None:
    """As large as privilege allows: SO_RCVBUFFORCE is 33, SO_SNDBUFFORCE 32."""
    for plain, force in ((socket.SO_RCVBUF, 33), (socket.SO_SNDBUF, 32)):
        sock.setsockopt(socket.SOL_SOCKET, plain, size)
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            continue


def dropped(sock: socket.socket) -> int:
    """How many packets the kernel dropped because this socket's buffer was full."""
    info = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (_MEMINFO_DROPS + 1))
    return int(struct.unpack_from("@I", info, 4 * _MEMINFO_DROPS)[0])
