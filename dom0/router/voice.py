"""Speaks for a router's VM on one of its links, from when it stands still until it has got its breath back."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from math import inf

from dom0.dataplane import netns
from dom0.router.keepalive import KeepaliveBook, understand
from dom0.router.keepalive_port import Impersonator
from dom0.router.namespace import RouterInterface
from dom0.router.session import Keepalive

SPEAKS_WITHIN_S = 3.0
"""So long after its resume a VM that falls silent on a session is helped out; then its neighbours judge for themselves."""


class Voice:
    """``own()``: what the VM has said since it runs here. OSError if there is no such interface."""

    def __init__(
        self,
        namespace: str,
        interface: RouterInterface,
        book: KeepaliveBook,
        own: Callable[[], KeepaliveBook | None],
    ) -> None:
        self._mac, self._own = interface.mac, own
        self._mouth = netns.call(namespace, lambda: _mouth(interface.name))
        self._impersonator = Impersonator(book, self._say)
        self._impersonator.start()

    def _say(self, frame: bytes) -> None:
        """Not while the VM speaks itself. Having just been moved it may not get to it in time: neighbours judge by the millisecond."""
        session = understand(frame, self._mac)
        if isinstance(session, Keepalive) and self._silent(session):
            self._mouth.send(frame)

    def _silent(self, session: Keepalive) -> bool:
        own = self._own()
        silence_s = inf if own is None else own.silence_s(session.key, time.monotonic())
        return silence_s is not None and silence_s > session.interval_s

    def close(self) -> None:
        self._impersonator.stop()
        self._mouth.close()


def _mouth(interface: str) -> socket.socket:
    """What is sent into it comes out of the router's port."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    found.bind((interface, 0))
    return found
