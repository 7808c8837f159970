"""A VM whose LAN is not at its new host: the old host's bridge goes on forwarding, through a tunnel that stays.

The tunnel's device becomes a port of the old bridge in place of the guest's tap; what the guest sends comes out there as before.
It ends when the VM comes home. What there is to undo is in the journal under ``stretch:UUID``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection
from ipaddress import ip_address

from dom0 import bridges, executor
from dom0.dataplane import tunnel
from dom0.dataplane.source_port import SourcePort
from vmnet.actions import Action, Kind
from vmnet.domain_xml import Interface
from vmnet.errors import RefusedError, VmnetError
from vmnet.store import JournalEntry, Store

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


async def begin(store: Store, vm: str, port: SourcePort, interface: Interface) -> None:
    """The guest runs elsewhere now: let the bridge that its tap was on forward into the tunnel."""
    bridge = str(interface.bridge)
    known = await store.journal(journal_id(vm))
    actions = (Action(Kind.TUNNEL, port.tunnel), Action(Kind.JOIN, port.tunnel, bridge))
    entries = [
        JournalEntry(
            len(known) + nth, one.to_json(), inverse.to_json() if (inverse := one.inverse()) else None
        )
        for nth, one in enumerate(actions)
    ]
    await store.journal_plan(journal_id(vm), entries)
    await bridges.join(port.tunnel, bridge)
    # Broadcast goes into the tunnel by the gate or by the port, never by both: a moment of neither would lose one.
    await asyncio.to_thread(bridges.flood, port.tunnel, True)
    port.stop_groups()


async def keep(store: Store, vm: str, actions: Collection[Action]) -> None:
    """The host a stretched guest runs on: what stays there until it leaves."""
    known = await store.journal(journal_id(vm))
    entries = [
        JournalEntry(
            len(known) + nth, one.to_json(), inverse.to_json() if (inverse := one.inverse()) else None
        )
        for nth, one in enumerate(actions)
    ]
    await store.journal_plan(journal_id(vm), entries)


async def end(store: Store, vm: str) -> None:
    """Undo what is left of an earlier stretch of ``vm`` on this host, if there is one."""
    entries = await store.journal(journal_id(vm))
    if entries:
        await executor.undo(entries, None)
        with contextlib.suppress(VmnetError):
            await store.journal_clear(journal_id(vm))


async def end_if_home(store: Store, vm: str, kept: Collection[str]) -> None:
    if not kept:
        await end(store, vm)
