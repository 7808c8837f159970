"""An Open vSwitch in the kernel gets flows for those who send to a guest before the guest runs here.

Without a flow the first packets of a sender go to ovs-vswitchd, and those behind them pass as soon as the flow is there: out of order.
Measured on a busy host: up to 63 packets late. The source says who sends. Frames with the same headers come in at the ports where
those senders are, while the guest stands still, and end at its gate (:mod:`dom0.dataplane.senders`, :mod:`dom0.dataplane.setup_port`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from dom0 import bridges
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.senders import HEADER_BYTES, MOST_SENDERS, is_sender, setup_frame, vlan_of
from dom0.ovs_addresses import Place, SwitchAddresses
from vmnet.errors import VmnetError

LOOK_AGAIN_S: Final = 10.0
_AGAIN_TURNS: Final = 10
"""Turns without all of the frames: a switch that did not yet know that the guest is here has dropped them."""


class Port(Protocol):
    """A guest's interface here, as :class:`dom0.dataplane.destination_port.DestinationPort` has it."""

    settings: PortSettings
    tap: str

    @property
    def set_up(self) -> int: ...

    def send_setup(self, port: str, frames: Sequence[bytes]) -> None: ...


def read_senders(raw: object, guest: bytes) -> list[bytes]:
    """The headers that a peer names for the guest's interface; what is no such header is left out."""
    found: list[bytes] = []
    for one in raw if isinstance(raw, list) else []:
        try:
            header = bytes.fromhex(one)
        except (TypeError, ValueError):
            continue
        if len(header) <= HEADER_BYTES and is_sender(header, guest):
            found.append(header)
    return found[:MOST_SENDERS]


class PortFlows:
    """Of one interface of the guest. Call :meth:`turn` again and again until :attr:`missing` is 0."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self.switch = SwitchAddresses()
        self._wanted: dict[Place, list[bytes]] = {}
        self._unplaced = 0
        self._sent_at = 0
        self._turns = 0
        self._done = False

    async def look(self) -> bool:
        """Learn from the switch where everybody is; False if it has no datapath in the kernel."""
        try:
            self.switch = await bridges.ovs_addresses(self._port.tap)
        except (VmnetError, ValueError):
            return False
        return bool(self.switch.ports)

    def want(self, headers: Sequence[bytes]) -> None:
        """Flows for frames with these headers, to the guest's tap."""
        guest = self._port.settings.mac
        for header in headers if self.switch.ports else ():
            vlan = self.switch.vlan_at(self._port.tap, vlan_of(header))
            place = self.switch.place(vlan, header[6:12], guest)
            if place is None or place.port == self._port.tap:
                self._unplaced += 1
            else:
                self._wanted.setdefault(place, []).append(setup_frame(header, place.vlan))

    @property
    def _frames(self) -> int:
        return sum(len(frames) for frames in self._wanted.values())

    @property
    def missing(self) -> int:
        """Senders whose flow is not known to be there."""
        here = self._frames if self._done else min(self._frames, self._port.set_up - self._sent_at)
        return self._unplaced + self._frames - here

    def turn(self) -> None:
        """The switch has just been told that the guest is here."""
        if self._done or not self._wanted:
            return
        if self._turns % _AGAIN_TURNS == 0:
            self._send()
        self._turns += 1
        self._done = self._port.set_up - self._sent_at >= self._frames

    def _send(self) -> None:
        self._sent_at = self._port.set_up
        for place, frames in self._wanted.items():
            try:
                self._port.send_setup(place.port, frames)
            except OSError:
                continue  # the port has gone, or is down: its senders stay missing


class FlowSetup:
    """Of all interfaces in ``ports``, which are on an Open vSwitch."""

    def __init__(self, ports: Sequence[Port]) -> None:
        self._flows = {port.settings.mac.hex(":"): PortFlows(port) for port in ports}
        self._known = asyncio.Event()
        """Who sends: nothing is looked up any more, the guest is about to come."""
        self._resumed = False
        self.missing_at_resume = 0
        """Senders that had no flow when the guest went on."""

    async def keep_looking(self) -> None:
        """Until :meth:`want`: who is where may change during pre-copy."""
        while all(await asyncio.gather(*(one.look() for one in self._flows.values()))):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._known.wait(), LOOK_AGAIN_S)
            if self._known.is_set():
                return

    def want(self, senders: Mapping[str, object]) -> None:
        """``senders``: headers as hexadecimal text, by the guest's MAC address; from a peer, once."""
        self._known.set()
        for mac, one in self._flows.items():
            one.want(read_senders(senders.get(mac), bytes.fromhex(mac.replace(":", ""))))
        self._count()

    def turn(self) -> None:
        for one in self._flows.values():
            one.turn()

    def resumed(self) -> None:
        """The guest goes on. Senders that are only named now have no flow either."""
        self._resumed = True
        self._count()

    def _count(self) -> None:
        if self._resumed:
            self.missing_at_resume = sum(one.missing for one in self._flows.values())


def of_message(message: dict[str, Any]) -> dict[str, object]:
    """The senders in a peer's request."""
    raw = message.get("senders")
    return {str(key): value for key, value in raw.items()} if isinstance(raw, dict) else {}
