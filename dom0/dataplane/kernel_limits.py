"""What this kernel gives our queues: asked once, by trying it on a device of our own.

Kernels differ, and no header says by how much.
Debian 12's 6.1 refuses a queue of more than 32,767 packets (ERANGE); 6.18 takes 262,144.
A tap's ring is also never larger than one allocation of the kernel (``ptr_ring_resize_multiple``: ENOMEM).
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from dom0.dataplane import netdev

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_TOO_LONG: Final = (errno.ERANGE, errno.EINVAL, errno.ENOMEM)
SHORTEST_QUEUE: Final = 1000
"""Packets. Every kernel makes a tap with this length (``DEFAULT_TX_QUEUE_LEN``, include/net/pkt_sched.h)."""


@dataclass(frozen=True)
class KernelLimits:
    """``queue_packets``: the longest queue that a tap can have here, or the one that was asked for if the kernel gives it."""

    queue_packets: int
    wanted_packets: int

    @property
    def short(self) -> bool:
        """The kernel gives less than the configuration asks for."""
        return self.queue_packets < self.wanted_packets

    def note(self, host: str) -> str:
        """For plan, verdict and doctor; empty if there is nothing to say."""
        return short_queue(host, self.queue_packets) if self.short else ""


def short_queue(host: str, packets: int) -> str:
    """What to tell people of a kernel's limit."""
    return f"{host} holds at most {packets} packets an interface: its kernel makes no longer queue"


def probe(wanted_packets: int) -> KernelLimits:
    """Try it. OSError if there is no /dev/net/tun, or no device can be made."""
    with _scratch_tap() as name:
        return KernelLimits(longest(wanted_packets, lambda packets: _takes(name, packets)), wanted_packets)


def longest(wanted_packets: int, takes: Callable[[int], bool]) -> int:
    """The largest length up to ``wanted_packets`` that ``takes`` accepts; it accepts every length below one that it accepts."""
    if takes(wanted_packets):
        return wanted_packets
    good, bad = min(SHORTEST_QUEUE, wanted_packets), wanted_packets
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if takes(middle) else (good, middle)
    return good


def _takes(name: str, packets: int) -> bool:
    try:
        netdev.set_queue_length(name, packets)
    except OSError as error:
        if error.errno not in _TOO_LONG:
            raise
        return False
    return True


@contextmanager
def _scratch_tap() -> Iterator[str]:
    """A tap that nobody else knows; it goes with its descriptor."""
    name = f"vmq{secrets.token_hex(4)}"
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        netdev.make_silent(name)
        yield name
    finally:
        os.close(descriptor)
