"""A VM whose LAN is not at its new host: the old host's bridge goes on forwarding, through a tunnel that stays.

The tunnel's device becomes a port of the old bridge in place of the guest's tap; what the guest sends comes out there as before.
It ends when the VM comes home. What there is to undo is in the journal under ``stretch:UUID``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from dom0 import bridges, executor
from dom0.dataplane import tunnel
from vmnet.actions import Action, Kind
from vmnet.errors import RefusedError, VmnetError
from vmnet.store import Store

_PROBE_PORT = tunnel.UDP_PORT


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


def journal_id(vm: str) -> str:
    return f"stretch:{vm}"


async def join(store: Store, vm: str, device: str, bridge: str, learns: bool = True) -> None:
    """Before the guest runs elsewhere: what it sends there comes in at its old bridge from the first frame on. Safe to repeat.

    ``learns``: see :func:`dom0.bridges.join`.
    """
    await _note(store, vm, (Action(Kind.TUNNEL, device), Action(Kind.JOIN, device, bridge)))
    await bridges.join(device, bridge, learns)


async def begin(store: Store, vm: str, device: str, bridge: str) -> None:
    """The guest runs elsewhere: its old bridge forwards into the tunnel ``device``. Safe to repeat."""
    await join(store, vm, device, bridge)
    await asyncio.to_thread(bridges.flood, device, True)


async def keep(store: Store, vm: str, device: str, tap: str) -> None:
    """On the host a stretched guest runs on: the tunnel ``device`` and its ``tap`` stay wired until it leaves."""
    await _note(store, vm, (Action(Kind.TUNNEL, device), Action(Kind.WIRE, tap)))


async def links(store: Store, vm: str) -> dict[str, str]:
    """Of a stretched guest on this host: tap or router's port -> the tunnel it is wired to."""
    entries = await store.journal(journal_id(vm))
    actions = [Action.from_json(one.action) for one in entries]
    tunnels = [one.target for one in actions if one.kind is Kind.TUNNEL]
    wired = [one.target for one in actions if one.kind is Kind.WIRE]
    return dict(zip(wired, tunnels, strict=False))


async def _note(store: Store, vm: str, actions: Sequence[Action]) -> None:
    """Journal what is not there already."""
    known = await store.journal(journal_id(vm))
    there = [Action.from_json(one.action) for one in known]
    entries = executor.planned((one for one in actions if one not in there), first=len(known))
    if entries:
        await store.journal_plan(journal_id(vm), entries)


def encode(pairs: Mapping[str, str]) -> dict[str, str]:
    """What a restarted daemon has to know of a stretched migration, for its record: device -> bridge (or tap)."""
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
