"""What a guest sends first from its new host keeps its order in that host's Open vSwitch, if its datapath is the kernel's.

It waits until the guest is known to run here, and is then let go as :mod:`dom0.dataplane.upcall_order` says: some milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from dom0.dataplane.destination_port import DestinationPort
from dom0.ovs_addresses import SwitchAddresses

_LOOK_S: Final = 0.005
OVERTAKEN_S: Final = 1.0
"""So long after the first frames those that have been overtaken are looked for: ovs-vswitchd takes a tenth of that on a busy host."""


class OwnFlows:
    """Of ``switches``: a guest's interface, with an outgoing gate, and what is known of its switch."""

    def __init__(self, switches: Mapping[DestinationPort, SwitchAddresses | None]) -> None:
        self._switches = switches
        self._held: list[DestinationPort] = []

    def hold(self) -> None:
        """From now on what the guest sends waits, at those interfaces whose switch has its datapath in the kernel."""
        for port, switch in self._switches.items():
            if switch is not None and switch.devices:
                port.keep_upcall_order(switch.devices.values())
                port.hold_outgoing()
                self._held.append(port)

    async def let_go(self, resumed: asyncio.Event) -> bool:
        """When the guest has resumed; False if what it sent then may be out of order."""
        while self._held and not resumed.is_set() and not any(port.outgoing_full for port in self._held):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(resumed.wait(), _LOOK_S)
        in_order = await asyncio.gather(*(asyncio.to_thread(port.let_go_outgoing) for port in self._held))
        if any(port.own_unsure for port in self._held):
            await asyncio.sleep(OVERTAKEN_S)
        overtaken = await asyncio.gather(*(asyncio.to_thread(port.own_overtaken) for port in self._held))
        return all(in_order) and not any(overtaken)
