"""A table of nftables at this host's input: what reaches the tunnels' UDP port from anybody but a peer is dropped.

A VXLAN device takes frames of its VNI from any address, at any address of the host (``vxlan_rcv``, drivers/net/vxlan/vxlan_core.c).
Without this table a VM that reaches its host could put frames into another VM's LAN. An address can be forged where nothing on the
way checks it: the network between the hosts stays trusted.

The table stays when the daemon ends, as the tunnels do. It is put in again if it is gone when a migration begins:
``systemctl reload nftables`` flushes every table.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from dom0 import nft
from dom0.dataplane import names, tunnel
from vmnet.config import Config

log = logging.getLogger(__name__)
TABLE = "vmnet_tunnel"
_PEERS = "peers"
_DEVICES = Path("/sys/class/net")
Address = IPv4Address | IPv6Address
Ends = tuple[Address, Address]
"""Of a tunnel: the other host's, and this one's."""


@dataclass(frozen=True)
class Found:
    """``dropped_packets``: since the table was put in. ``reason``: why there is no table, else ""."""

    dropped_packets: int = 0
    reason: str = ""


class TunnelFilter:
    """Of one daemon. Does nothing where ``listen.tunnel_filter`` is off, or where there are no peers."""

    def __init__(self, config: Config) -> None:
        self._wanted = config.listen.tunnel_filter and bool(config.peers)
        self._local = config.listen.tunnel_address
        self._peers = [
            ip_address(one)
            for peer in config.peers.values()
            for one in (peer.address, peer.tunnel_address)
            if one is not None
        ]
        self._changing = asyncio.Lock()

    @property
    def wanted(self) -> bool:
        return self._wanted

    async def install(self) -> bool:
        """In place of what is there, in one transaction; whether it is in. Logs if nftables refuses."""
        if not self._wanted:
            return False
        async with self._changing:
            standing = await asyncio.to_thread(_standing)
            said = await nft.run("-f", "-", text=ruleset(self._peers, self._local, standing))
        if said.error:
            log.warning(
                "UDP %d takes frames from any address, not from peers alone: %s", tunnel.UDP_PORT, said.error
            )
        return not said.error

    async def ensure(self) -> None:
        """Put the table in if somebody has removed or emptied it."""
        if self._wanted and (reason := (await self.look()).reason) and await self.install():
            log.warning("the nftables table inet %s is put in again: %s", TABLE, reason)

    async def look(self) -> Found:
        """What is there."""
        said = await nft.run("-j", "list", "table", "inet", TABLE)
        if said.error:
            return Found(reason=said.error)
        try:
            return found(json.loads(said.text))
        except ValueError:
            return Found(reason="nft gave no JSON")


def ruleset(peers: Iterable[Address], local: str | None, standing: Iterable[Ends] = ()) -> str:
    """For `nft -f`. ``local``: the only address of this host where tunnels of its family end; None: they may end at any. Pure.

    ``standing``: remote and local ends of tunnels that are there; they keep both, whatever the configuration says since.
    """
    here = ip_address(local) if local is not None else None
    accepted = sorted({_plain(one) for one in peers}, key=lambda one: (one.version, one))
    matches = [_match(one, here) for one in accepted]
    kept = sorted({_match(_plain(remote), own) for remote, own in standing} - set(matches))
    rules = [f"{one} return" for one in (*matches, *kept)]
    return "\n".join(
        [
            f"table inet {TABLE}",  # a table that is not there cannot be deleted
            f"delete table inet {TABLE}",
            f"table inet {TABLE} {{",
            f"chain {_PEERS} {{",
            *rules,
            "counter drop",
            "}",
            "chain input {",
            "type filter hook input priority -300; policy accept;",
            f"udp dport {tunnel.UDP_PORT} jump {_PEERS}",
            "}",
            "}",
            "",
        ]
    )


def _match(peer: Address, here: Address | None) -> str:
    family = "ip6" if peer.version == 6 else "ip"
    match = f"{family} saddr {peer}"
    if here is not None and here.version == peer.version:
        match += f" {family} daddr {_plain(here)}"
    return match


def _plain(address: Address) -> Address:
    """Without the interface of a link-local address: nft takes none there."""
    return IPv6Address(address.packed) if address.version == 6 else address


def found(listed: Mapping[str, Any]) -> Found:
    """From `nft -j list table`: whether the rules are there, and what they dropped. Pure."""
    objects = listed.get("nftables")
    rules = [one["rule"] for one in objects if "rule" in one] if isinstance(objects, list) else []
    entry = [one for one in rules if one.get("chain") == "input"]
    last = next((one for one in reversed(rules) if one.get("chain") == _PEERS), None)
    if not entry or last is None:
        return Found(reason=f"table inet {TABLE} has lost its rules")
    counted = [one["counter"]["packets"] for one in last.get("expr", []) if "counter" in one]
    if not counted:
        return Found(reason=f"table inet {TABLE} has other rules")
    return Found(int(counted[0]))


def _standing() -> list[Ends]:
    """Of tunnels that are there: a stretched VM's may lead to a host that is in the configuration no more, or from an old address."""
    standing = []
    for device in _DEVICES.iterdir():
        if names.is_ours(device.name):
            with suppress(OSError, ValueError, NetlinkError):  # no tunnel, or gone meanwhile
                ends = tunnel.ends_of(device.name)
                standing.append((ip_address(ends.remote), ip_address(ends.local)))
    return standing
