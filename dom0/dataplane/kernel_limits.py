"""What this kernel gives our queues: asked once, by trying it on a device of our own.

Kernels differ, and no header says by how much.
Debian 12's 6.1 refuses a queue of more than 32,767 packets (ERANGE); 6.18 takes 262,144.
A tap's ring is also never larger than one allocation of the kernel (``ptr_ring_resize_multiple``: ENOMEM).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from dom0.dataplane import netdev, netns
from dom0.dataplane.park import Park

_TAP: Final = "vmqprobe0"
_MTU_BYTES: Final = 1500
_TOO_LONG: Final = (errno.ERANGE, errno.EINVAL, errno.ENOMEM)
SHORTEST_QUEUE: Final = 1000
"""Packets. Every kernel makes a tap with this length (``DEFAULT_TX_QUEUE_LEN``, include/net/pkt_sched.h)."""

LONGEST_QUEUE: Final = 524_288
"""Packets. No kernel makes a longer ring; 6.18 answers EPERM then."""
SPARE_PACKETS: Final = 1
"""In a tap's queue, for the frame of ours that is first in it (:func:`dom0.dataplane.announce.spare_frame`)."""


@dataclass(frozen=True)
class KernelLimits:
    """``queue_packets``: how many a tap can hold here beside our spare frame, or what was asked for if the kernel gives it."""

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
    """Try it in a network namespace that nobody else sees. OSError if there is no /dev/net/tun, or no device can be made."""
    wanted = min(wanted_packets + SPARE_PACKETS, LONGEST_QUEUE)
    length = netns.call_apart(lambda: _longest_queue(wanted))
    return KernelLimits(length - SPARE_PACKETS, wanted_packets)


def _longest_queue(wanted_packets: int) -> int:
    with closing(Park(_TAP, SHORTEST_QUEUE, _MTU_BYTES, gated=False)):
        return longest(wanted_packets, lambda packets: _takes(_TAP, packets))


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
