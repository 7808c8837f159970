"""Keepalives at a VM's tap: a watch that fills the book while the VM runs, and one who speaks for it while it stands still."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable

from dom0.dataplane import packet_filter
from dom0.router.keepalive import KeepaliveBook
from dom0.router.keepalive_filter import keepalive_filter
from dom0.router.packet import MOST_FRAME_BYTES

_ETH_P_ALL = 3
_FRAMES_AT_ONCE = 64
_REST_S = 0.01
"""After so many frames at once the loop is left alone for a moment: what a VM floods, the kernel drops."""

_log = logging.getLogger(__name__)
Clock = Callable[[], float]


class KeepaliveWatch:
    """Reads keepalives on ``tap`` into ``book``, on the running event loop. OSError if there is no such device."""

    def __init__(
        self, tap: str, mac: bytes, book: KeepaliveBook | None = None, clock: Clock = time.monotonic
    ) -> None:
        self.book = book or KeepaliveBook(mac)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            packet_filter.attach(self._socket, keepalive_filter())
            self._socket.bind((tap, _ETH_P_ALL))
        except OSError:
            self._socket.close()
            raise
        self._read()

    def drain(self) -> bool:
        """Take in what has arrived, at most 64 frames; whether that was all. Before a stop: the last word may still wait."""
        for _ in range(_FRAMES_AT_ONCE):
            try:
                frame, address = self._socket.recvfrom(MOST_FRAME_BYTES + 1)
            except BlockingIOError:
                return True
            except OSError:
                # the tap is down or has gone: it says so once, and is silent then
                continue
            enter = self.book.heard if address[2] == socket.PACKET_OUTGOING else self.book.seen
            enter(frame, self._clock())
        return False

    def _read(self) -> None:
        self._rest = None
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        if not self.drain():
            self._loop.remove_reader(self._socket.fileno())
            self._rest = self._loop.call_later(_REST_S, self._read)

    def close(self) -> None:
        """Again: nothing. The book stays as it is."""
        if self._socket.fileno() < 0:
            return
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()


class Impersonator:
    """Says again what is in ``book`` by ``send``, from ``start`` to ``stop``, in a thread of its own: a loop may be late.

    ``drain`` is called before, to take in the VM's last words. ``send`` is called in that thread; an OSError of it is counted in
    ``failed`` and does not end the others' frames. ``late_s`` is the greatest lateness so far, in s; ``book.sent`` counts by session.
    """

    def __init__(
        self,
        book: KeepaliveBook,
        send: Callable[[bytes], object],
        drain: Callable[[], object] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.book = book
        self.failed = 0
        self.late_s = 0.0
        self._send = send
        self._drain = drain
        self._clock = clock
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """The VM stands still (since before, if its book came from another host). Again: nothing."""
        if self._thread is None:
            if self._drain is not None:
                self._drain()
            self.book.stop(self._clock())
            self._over.clear()
            self._thread = threading.Thread(target=self._run, name="keepalives", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """The VM runs again; nothing is sent any more when this returns. Again: nothing."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._over.set()
            thread.join()
            self.book.resume(self._clock())

    def __enter__(self) -> Impersonator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        started = self._clock()
        at = self.book.next(started)
        while at is not None and not self._over.wait(max(0.0, at - self._clock())):
            now = self._clock()
            self.late_s = max(self.late_s, now - max(at, started))
            for frame in self.book.due(now):
                self._say(frame)
            at = self.book.next(self._clock())
        if at is None and not self._over.is_set():
            _log.info("no keepalive is left to be answered for")

    def _say(self, frame: bytes) -> None:
        try:
            self._send(frame)
        except OSError:
            self.failed += 1
