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

from controller_bridge.setup_frame import HEADER_BYTES
from dom0 import bridges
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.senders import MOST_SENDERS, is_sender, scout, setup_frame, vlan_of
from dom0.ovs_addresses import Place, SwitchAddresses
from vmnet.errors import VmnetError

LOOK_AGAIN_S: Final = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.02
"""Between two turns: ovs-vswitchd needs a fraction of a millisecond, and on a busy host a hundred."""
KEEP_S: Final = 4.0
"""Its datapath removes a flow that nothing has used for ten seconds (``max-idle``): a guest may stand still for longer."""
_AGAIN_TURNS: Final = 8
"""Turns without all of the frames: the switch did not yet know that the guest is here, or is slow."""


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
    """Of one interface of the guest. Call :meth:`turn` again and again until :attr:`missing` is 0.

    First a *scout*, a frame from an address that nobody has, has to come to the gate: then the switch knows that the guest is here. A
    sender's frame that came earlier would leave a flow that drops what comes directly.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self.switch: SwitchAddresses | None = None
        self._wanted: dict[Place, list[bytes]] = {}
        self._unplaced = 0
        self._sent = self._sent_at = 0
        self._turns_left = 0
        self._known = self._done = False

    async def look(self) -> bool:
        """Learn from the switch where everybody is; False if there is nothing more to learn: it has no datapath in the kernel."""
        try:
            self.switch = await bridges.ovs_addresses(self._port.tap)
        except (VmnetError, ValueError):
            return True
        return bool(self.switch.devices)

    def want(self, headers: Sequence[bytes]) -> None:
        """Flows for frames with these headers, to the guest's tap."""
        if self.switch is None:
            self._unplaced += len(headers)
            return
        guest = self._port.settings.mac
        for header in headers if self.switch.devices else ():
            vlan = self.switch.vlan_at(self._port.tap, vlan_of(header))
            place = self.switch.place(vlan, header[6:12], guest)
            if place is None or place.port == self._port.tap:
                self._unplaced += 1
            else:
                self._wanted.setdefault(place, []).append(setup_frame(header, place.vlan))

    @property
    def missing(self) -> int:
        """Senders whose flow is not known to be there."""
        if self._done:
            return self._unplaced
        here = self._arrived if self._known else 0
        return self._unplaced + max(0, sum(len(frames) for frames in self._wanted.values()) - here)

    @property
    def _arrived(self) -> int:
        """Of the frames that were sent last."""
        return self._port.set_up - self._sent_at

    def turn(self) -> None:
        """Look whether what was sent has come, and go on; send again what has not come after some turns."""
        if self._done or not self._wanted:
            return
        if self._sent and self._arrived >= self._sent:
            self._done, self._known = self._known, True
            self._turns_left = 0
        if not self._done and not self._turns_left:
            self._send()
            self._turns_left = _AGAIN_TURNS
        self._turns_left -= 1

    def keep(self) -> None:
        """Use the flows that are there, so that the switch keeps them."""
        self._done = self._done or (self._known and self.missing == self._unplaced)
        if self._done:
            self._send()

    def _send(self) -> None:
        self._sent_at, self._sent = self._port.set_up, 0
        for place, frames in list(self._wanted.items()):
            sent = frames if self._known else [scout(self._port.settings.mac, place.vlan)]
            try:
                self._port.send_setup(place.port, sent)
                self._sent += len(sent)
            except OSError:  # the port has gone, or is down
                self._unplaced += len(self._wanted.pop(place))


class FlowSetup:
    """Of all interfaces in ``ports``, which are on an Open vSwitch."""

    def __init__(self, ports: Sequence[Port]) -> None:
        self._flows = {port.settings.mac.hex(":"): PortFlows(port) for port in ports}
        self._named = asyncio.Event()
        self._resumed = asyncio.Event()
        self.missing_at_resume = 0
        """Senders that had no flow when the guest went on."""

    @property
    def switches(self) -> dict[str, SwitchAddresses | None]:
        """What is known of the switch of each interface, by MAC address."""
        return {mac: one.switch for mac, one in self._flows.items()}

    async def keep_looking(self) -> None:
        """Until :meth:`want`: who is where may change during pre-copy."""
        while all(await asyncio.gather(*(one.look() for one in self._flows.values()))):
            if await _is_set(self._named, LOOK_AGAIN_S):
                return

    def want(self, senders: Mapping[str, object]) -> None:
        """``senders``: headers as hexadecimal text, by the guest's MAC address; from a peer; the first time."""
        if self._named.is_set():
            return
        self._named.set()
        for mac, one in self._flows.items():
            one.want(read_senders(senders.get(mac), bytes.fromhex(mac.replace(":", ""))))
        self._count()

    async def set_up(self) -> None:
        """Until the guest goes on: flows that are there are kept."""
        await self._until_there()
        while not await _is_set(self._resumed, KEEP_S):
            for one in self._flows.values():
                one.keep()

    async def _until_there(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._resumed.is_set() and any(one.missing for one in self._flows.values()):
            for one in self._flows.values():
                one.turn()
            await _is_set(self._resumed, pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def resumed(self) -> None:
        """The guest goes on. Senders that are only named now have no flow either."""
        for one in self._flows.values():
            one.turn()
        self._resumed.set()
        self._count()

    def _count(self) -> None:
        if self._resumed.is_set():
            self.missing_at_resume = sum(one.missing for one in self._flows.values())


async def _is_set(event: asyncio.Event, limit_s: float) -> bool:
    """Waits at most so long."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)
    return event.is_set()


def of_message(message: dict[str, Any]) -> dict[str, object]:
    """The senders in a peer's request."""
    raw = message.get("senders")
    return {str(key): value for key, value in raw.items()} if isinstance(raw, dict) else {}
