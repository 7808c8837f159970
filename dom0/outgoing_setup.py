"""The switches of a fabric that is told get flows for what a guest will send from here, before it runs here.

The source says who has sent the guest frames: it will answer them. A reply to each (:mod:`vmnet.undeliverable`) goes from the
guest's bridge into the fabric, by the way of the guest's own. It comes from the bridge's own address, which is here already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from dom0 import bridges
from dom0.dataplane.destination_port import DestinationPort
from dom0.dataplane.park import NO_OFFLOAD
from dom0.dataplane.sender import Sender
from dom0.dataplane.senders import vlan_of
from dom0.flow_setup import read_senders
from vmnet.errors import VmnetError
from vmnet.undeliverable import reply_like

_TURNS: Final = 5
"""A frame may be lost."""
_PAUSE_S: Final = 0.05


async def set_up(
    ports: Sequence[tuple[DestinationPort, str]], senders: Mapping[str, object], resumed: asyncio.Event
) -> None:
    """``ports``: each with its bridge. ``senders``: as :meth:`dom0.flow_setup.FlowSetup.want` has them. Ends when the guest runs."""
    frames: dict[str, list[bytes]] = {}
    for port, bridge in ports:
        headers = read_senders(senders.get(port.settings.mac.hex(":")), port.settings.mac)
        # a bridge that does not say who it is goes without
        with contextlib.suppress(VmnetError, OSError, ValueError):
            frames.setdefault(bridge, []).extend(await _replies(headers, port.tap, bridge))
    for _turn in range(_TURNS):
        for bridge, replies in frames.items():
            with contextlib.suppress(OSError), contextlib.closing(Sender(bridge)) as sender:
                for frame in replies:
                    sender.send(NO_OFFLOAD + frame)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(resumed.wait(), _PAUSE_S)
        if resumed.is_set():
            return


async def _replies(headers: Sequence[bytes], tap: str, bridge: str) -> list[bytes]:
    source = bytes.fromhex(Path(f"/sys/class/net/{bridge}/address").read_text().strip().replace(":", ""))
    if bridges.is_linux_bridge(bridge):
        # which VLAN a port without tags is in is the port's: it may be another one than the bridge's own
        plain = Path(f"/sys/class/net/{bridge}/bridge/vlan_filtering").read_text().strip() == "0"
        tags = {header: vlan_of(header) for header in headers} if plain else {}
    else:
        switch = await bridges.ovs_addresses(tap)
        tags = {header: switch.vlan_at(tap, vlan_of(header)) for header in headers}
    found = (reply_like(header, source, tag) for header, tag in tags.items())
    return list(dict.fromkeys(frame for frame in found if frame is not None))
