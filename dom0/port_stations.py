"""Who else is behind a guest's port: the MAC addresses that its bridge has learned there (of a nested bridge, macvlan, a changed MAC),
and the guest's own in VLANs of which it sends the tags.

They go where the guest goes, so they are announced there like the guest's own. Only what the bridge has heard at this port counts: the
guest could announce nothing else itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyroute2 import IPRoute

from dom0 import bridges
from dom0.bridge_port import UNTAGGED_INTO, vlans_of
from dom0.claim import MOST_STATIONS, mac_bytes
from dom0.dataplane import netdev
from dom0.dataplane.announce import is_nobody
from dom0.dataplane.guest_vlans import VlanWatch
from dom0.ovs_addresses import addresses
from vmnet.errors import VmnetError

_BRIDGE: Final = 7  # AF_BRIDGE
_PERMANENT: Final = 0x80
_SELF: Final = 0x02  # NTF_SELF: the device's own table, not the bridge's
_LOOK_S: Final = 5.0
_PORT = re.compile(r"(\S+)\n(\d+)\n(\d+|\[\])\s*\Z")


@dataclass(frozen=True, order=True)
class Station:
    """``vlan``: in whose tag its frames pass the port; 0: in none."""

    mac: bytes
    vlan: int = 0


async def behind(tap: str, own: bytes) -> list[Station]:
    """Sorted, without ``own`` (untagged) and the senders of our frames. VmnetError, ValueError, OSError: the bridge does not say."""
    if netdev.is_linux_bridge_port(tap):
        learned = await asyncio.to_thread(_behind_linux, tap)
    else:
        learned = await _behind_ovs(tap)
    return sorted(one for one in learned if one != Station(own) and not is_nobody(one.mac))


class StationWatch:
    """Looks now and then who is behind the taps of a guest that is about to leave: a switchover does not wait for a bridge to answer.

    ``taps``: each with the MAC address of the guest's interface.
    """

    def __init__(self, taps: Sequence[tuple[str, bytes]], log: logging.Logger) -> None:
        self._taps, self._log = taps, log
        self._behind: dict[bytes, list[Station]] = {}
        self._vlans: dict[bytes, VlanWatch] = {}

    async def keep_looking(self) -> None:
        """Until cancelled, or no tap is left."""
        with contextlib.ExitStack() as stack:
            for tap, mac in self._taps:
                try:
                    self._vlans[mac] = stack.enter_context(contextlib.closing(VlanWatch(tap, mac)))
                except OSError as error:
                    self._log.debug("in which VLANs %s sends is not known: %s", tap, error)
            while self._taps:
                for tap, mac in self._taps:
                    try:
                        self._behind[mac] = await behind(tap, mac)
                    except (VmnetError, ValueError, OSError) as error:
                        self._log.debug("who is behind %s is not known: %s", tap, error)
                        if not netdev.exists(tap):
                            return
                await asyncio.sleep(_LOOK_S)

    def _stations(self) -> dict[bytes, list[Station]]:
        """As far as the bridges say it, and what the guest has shown by now."""
        found = {}
        for _tap, mac in self._taps:
            vlans = self._vlans[mac].turn() if mac in self._vlans else ()
            shown = {Station(mac, vlan) for vlan in vlans}
            if stations := sorted(shown.union(self._behind.get(mac, ()))):
                found[mac] = stations
        return found

    def to_json(self) -> dict[str, list[tuple[str, int]]]:
        """By MAC address of the interface, what :func:`dom0.claim.stations` reads."""
        return {
            mac.hex(":"): [(one.mac.hex(":"), one.vlan) for one in stations[:MOST_STATIONS]]
            for mac, stations in self._stations().items()
        }

    def left_out(self) -> list[str]:
        """In words, for the verdict: those that are too many to be announced."""
        return [
            f"{len(stations) - MOST_STATIONS} of {len(stations)} MAC addresses behind {mac.hex(':')} were not announced: "
            "the fabric finds them at the new host when they send"
            for mac, stations in self._stations().items()
            if len(stations) > MOST_STATIONS
        ]


def _behind_linux(tap: str) -> set[Station]:
    index = netdev.index_of(tap)
    with IPRoute() as netlink:
        vlans = vlans_of(netlink, index)
        entries = list(netlink.get_neighbours(family=_BRIDGE, ifindex=index))
    untagged = next((vlan for vlan, how in vlans if how & UNTAGGED_INTO), 0)  # 0: the bridge filters none
    stations = set()
    for entry in entries:
        mac, vlan = entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_VLAN") or 0
        own = entry["state"] & _PERMANENT or entry["flags"] & _SELF
        if mac and entry["ifindex"] == index and not own:
            stations.add(Station(mac_bytes(mac), 0 if vlan == untagged else vlan))
    return stations


async def _behind_ovs(tap: str) -> set[Station]:
    printed = await bridges.ovs_vsctl(
        "iface-to-br",
        tap,
        "--",
        "get",
        "Interface",
        tap,
        "ofport",
        "--",
        "--if-exists",
        "get",
        "Port",
        tap,
        "tag",
    )
    bridge, number, tag = port_of(printed)
    known = addresses(await bridges.ovs_appctl("fdb/show", bridge))
    return {Station(mac, 0 if vlan == tag else vlan) for (vlan, mac), port in known.items() if port == number}


def port_of(printed: str) -> tuple[str, int, int]:
    """Bridge, OpenFlow number and VLAN (0: none) of a port, as ``ovs-vsctl`` prints them. ValueError if it does not."""
    match = _PORT.match(printed)
    if match is None:
        raise ValueError(f"ovs-vsctl printed no port: {printed[:80]!r}")
    return match[1], int(match[2]), 0 if match[3] == "[]" else int(match[3])
