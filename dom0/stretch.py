"""A VM whose LAN is not at its new host: the old host's bridge goes on forwarding, through a tunnel that stays.

The tunnel's device becomes a port of the old bridge in place of the guest's tap; what the guest sends comes out there as before.
It ends when the VM comes home. What there is to undo is in the journal under ``stretch:UUID``, and what a tunnel was made with: a host
that has booted again makes it again (:func:`restore`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from pyroute2.netlink.exceptions import NetlinkError

from dom0 import bridges, executor
from dom0.bridge_port import BridgePort
from dom0.dataplane import netdev, tunnel, wire
from dom0.router import names as router_names
from vmnet.actions import Action, Kind
from vmnet.config.model import Peer
from vmnet.errors import PeerError, RefusedError, VmnetError
from vmnet.store import Store

log = logging.getLogger(__name__)
_PROBE_PORT = tunnel.UDP_PORT
_JOURNAL = "stretch:"


def local_address(configured: str | None, remote: str) -> str:
    """Our end of a tunnel to ``remote``: as configured, else the address the kernel would use. RefusedError: no route."""
    if configured is not None and ip_address(configured).version == ip_address(remote).version:
        return configured
    family = socket.AF_INET6 if ip_address(remote).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((remote, _PROBE_PORT))
        except OSError as error:
            raise RefusedError(
                f"no route to {remote} for the tunnel: {error.strerror}", "see `ip route get`"
            ) from None
        return str(probe.getsockname()[0])


def check_remote(name: str, peer: Peer, address: str) -> None:
    """PeerError if the tunnels of that peer may not end at ``address``: a peer cannot have packets sent to somebody else."""
    known = [ip_address(one) for one in (peer.address, peer.tunnel_address) if one is not None]
    if ip_address(address) not in known:
        raise PeerError(
            f"{name} has its tunnels end at {address}, which is not its address ({', '.join(map(str, known))})",
            f"if that is right, set [peers.{name}] tunnel_address",
        )


def journal_id(vm: str) -> str:
    return f"{_JOURNAL}{vm}"


async def join(store: Store, vm: str, device: str, place: str, learns: bool = True) -> None:
    """Before the guest runs elsewhere: what it sends there comes in at its old bridge from the first frame on. Safe to repeat.

    ``place``: the guest's in its old bridge, as the text of a :class:`BridgePort`. ``learns``: see :func:`dom0.bridges.join`.
    """
    await _note(store, vm, (await _made(device), Action(Kind.JOIN, device, place)))
    await bridges.join(device, BridgePort.parse(place), learns)


async def begin(store: Store, vm: str, device: str, place: str) -> None:
    """The guest runs elsewhere: its old bridge forwards into the tunnel ``device``. Safe to repeat. ``place``: see :func:`join`."""
    await join(store, vm, device, place)
    await asyncio.to_thread(bridges.flood, device, True)


async def keep(store: Store, vm: str, device: str, tap: str) -> None:
    """On the host a stretched guest runs on: the tunnel ``device`` and its ``tap`` stay wired until it leaves."""
    await _note(store, vm, (await _made(device), Action(Kind.WIRE, tap)))


async def links(store: Store, vm: str) -> dict[str, str]:
    """Of a stretched guest on this host: tap or router's port -> the tunnel it is wired to."""
    return _wired(await _actions(store, vm))


async def _actions(store: Store, vm: str) -> list[Action]:
    return [Action.from_json(one.action) for one in await store.journal(journal_id(vm))]


def _wired(actions: Sequence[Action]) -> dict[str, str]:
    tunnels = [one.target for one in actions if one.kind is Kind.TUNNEL]
    wired = [one.target for one in actions if one.kind is Kind.WIRE]
    return dict(zip(wired, tunnels, strict=False))


async def _note(store: Store, vm: str, actions: Sequence[Action]) -> None:
    """Journal what is not there already."""
    known = await store.journal(journal_id(vm))
    there = {(one.action["kind"], one.action["target"]) for one in known}
    new = (one for one in actions if (one.kind.value, one.target) not in there)
    entries = executor.planned(new, first=len(known))
    if entries:
        await store.journal_plan(journal_id(vm), entries)


async def _made(device: str) -> Action:
    """With what the tunnel was made with, if it is there."""
    try:
        return Action(Kind.TUNNEL, device, str(await asyncio.to_thread(tunnel.ends_of, device)))
    except (OSError, ValueError, NetlinkError) as error:  # it can do without
        log.warning("a reboot will cut what is behind tunnel %s off: %s", device, error)
        return Action(Kind.TUNNEL, device)


async def restore(store: Store) -> None:
    """Make the tunnels again that a reboot of this host has taken away. Those of guests that ran here have ended with them."""
    for identity in await store.journaled():
        if identity.startswith(_JOURNAL):
            vm = identity.removeprefix(_JOURNAL)
            try:
                await _restore(store, vm)
            except (VmnetError, OSError, ValueError) as error:
                log.error("VM %s is cut off from its LAN, which is here: %s", vm, error)


async def _restore(store: Store, vm: str) -> None:
    actions = await _actions(store, vm)
    places = {one.target: one.value for one in actions if one.kind is Kind.JOIN}
    taps = {device: tap for tap, device in _wired(actions).items()}
    for made in actions:
        device = made.target
        if made.kind is not Kind.TUNNEL or netdev.exists(device):
            continue
        if device in taps and not netdev.exists(taps[device]):
            log.info("VM %s does not run here any more: its tunnel %s has gone with it", vm, device)
            await end(store, vm)
            return
        ends = tunnel.Ends.parse(made.value)
        await asyncio.to_thread(tunnel.create, device, ends.vni, ends.local, ends.remote, ends.mtu)
        if device in places:
            await bridges.join(device, BridgePort.parse(places[device]))
            await asyncio.to_thread(bridges.flood, device, True)
        elif not router_names.is_port(taps[device]):  # a router's port is put in order with the router
            await asyncio.to_thread(wire.both_ways, taps[device], device)
        log.warning("the tunnel %s of VM %s had gone, as after a reboot, and is there again", device, vm)


def encode(pairs: Mapping[str, str]) -> dict[str, str]:
    """What a restarted daemon has to know of a stretched migration, for its record: device -> place in its bridge (or tap)."""
    return {f"stretch {device}": other for device, other in pairs.items()}


def decode(settings: Mapping[str, str]) -> dict[str, str]:
    return {name.split()[1]: other for name, other in settings.items() if name.startswith("stretch ")}


async def end(store: Store, vm: str) -> None:
    """Undo what is left of an earlier stretch of ``vm`` on this host, if there is one."""
    entries = await store.journal(journal_id(vm))
    if entries:
        await executor.undo(entries, None)
        with contextlib.suppress(VmnetError):
            await store.journal_clear(journal_id(vm))
