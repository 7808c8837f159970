"""The moment from which the host forwards in its router VM's stead: what the VM still has in its hands goes out first.

A packet takes a millisecond through the VM and microseconds through the namespace. So new ones wait until the VM is through with those
it has been given. It says so itself: whoever answers an ARP request has worked off what came in at that interface before.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from secrets import randbelow

from dom0.dataplane import grace, pump
from dom0.dataplane.announce import arp_probe
from dom0.dataplane.gate_program import MARK, Mode, Word
from dom0.dataplane.listener import Listener, destination_filter
from dom0.dataplane.names import park_name
from dom0.dataplane.park import NO_OFFLOAD, Park
from dom0.dataplane.sender import Sender
from dom0.router.port import RouterPort

_LIMIT_S = 0.1
_QUIET_S, _MOST_QUIET_S = 0.003, 0.02
"""What the VM has sent on one interface may come out a little later than its answer on another."""
_LOOK_S = 0.0005
_ASKS = bytes.fromhex("02766d000002")
"""Who asks: a station that nobody has."""


@dataclass(frozen=True)
class Side:
    """An interface of the router, in mode SLOW; ``address``: one that the VM has there, if it has an IPv4 address."""

    port: RouterPort
    address: IPv4Address | None


class _Held:
    """New data waits from :meth:`hold` to :meth:`open`."""

    def __init__(self, port: RouterPort, most_packets: int, stack: ExitStack) -> None:
        self._port = port
        name = park_name(randbelow(1 << 24))
        self._park = stack.enter_context(closing(Park(name, most_packets, port.interface.mtu)))
        self._to_port = stack.enter_context(closing(Sender(port.name, MARK)))
        port.set(Word.PARK_IFINDEX, self._park.ifindex)
        stack.callback(self._end)

    def hold(self) -> None:
        self._port.mode = Mode.HOLD

    def open(self) -> bool:
        """Through the namespace with what waits, and with all that comes. Whether in order."""
        _pumped, ordered = pump.empty_in_peace(self._port, self._park, self._to_port, Mode.PASS)
        return ordered

    def _end(self) -> None:
        """Before the park goes, whatever has failed."""
        if self._port.mode is not Mode.SLOW:
            self._port.mode = Mode.PASS
            grace.wait_for_hands()
        self._port.set(Word.PARK_IFINDEX, 0)


def take_over(sides: Sequence[Side], most_packets: int) -> bool:
    """Data goes from the VM to the namespace. Takes some milliseconds, 0.1 s if the VM does not answer; call it in a thread.

    False: the VM may have had some left, which new ones have overtaken. OSError if nothing can be held; nothing has changed then.
    """
    with ExitStack() as stack:
        held = [_Held(one.port, most_packets, stack) for one in sides]
        vm = [stack.enter_context(closing(_VmSide(one))) for one in sides if one.port.tap is not None]
        for each in held:
            each.hold()
        grace.wait_for_hands()
        ordered = _through(vm, time.monotonic() + _LIMIT_S)
        opened = [each.open() for each in held]
        return ordered and all(opened)


class _VmSide:
    """The VM behind one tap: asks it, hears its answer, and counts what it sends."""

    def __init__(self, side: Side) -> None:
        assert side.port.tap is not None
        self._statistics = Path(f"/sys/class/net/{side.port.tap}/statistics/rx_packets")
        self._question = (
            None if side.address is None else arp_probe(_ASKS, side.port.interface.mac, side.address)
        )
        self._answers = Listener(side.port.tap, destination_filter(_ASKS))
        self._to_vm = Sender(side.port.tap)

    @property
    def fd(self) -> int:
        return self._answers.fd

    def ask(self) -> bool:
        """Whether there is something to ask."""
        if self._question is None:
            return False
        self._to_vm.send(NO_OFFLOAD + self._question)
        return True

    def answered(self) -> bool:
        return bool(self._answers.drain())

    def sent(self) -> int:
        """Frames that the VM has sent since its tap was made."""
        return int(self._statistics.read_text())

    def close(self) -> None:
        self._answers.close()
        self._to_vm.close()


def _through(vm: Sequence[_VmSide], deadline: float) -> bool:
    """Wait until the VM has sent what it had. False if it has not said so. ``deadline``: monotonic."""
    asked = {one.fd: one for one in vm if one.ask()}
    answered = bool(asked) and _all_answer(asked, deadline)
    _wait_quiet(vm, min(deadline, time.monotonic() + _MOST_QUIET_S))
    return answered


def _all_answer(asked: dict[int, _VmSide], deadline: float) -> bool:
    waiter = select.poll()
    for fd in asked:
        waiter.register(fd, select.POLLIN)
    while asked:
        left_ms = (deadline - time.monotonic()) * 1000
        if left_ms <= 0:
            return False
        for fd, _event in waiter.poll(left_ms):
            if asked[fd].answered():
                waiter.unregister(fd)
                del asked[fd]
    return True


def _wait_quiet(vm: Sequence[_VmSide], deadline: float) -> None:
    """Until it has sent nothing for 3 ms, or the deadline: it may have much to say itself."""
    before, since = [one.sent() for one in vm], time.monotonic()
    while since + _QUIET_S > (now := time.monotonic()) < deadline:
        time.sleep(_LOOK_S)
        sent = [one.sent() for one in vm]
        if sent != before:
            before, since = sent, now
