"""Makes and undoes journaled changes. Undoing what was never made, or has gone by itself, does nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence

from controller_bridge.rerouters.base import Rerouter
from dom0 import bridges, fabric
from dom0.bridge_port import BridgePort
from dom0.dataplane import classifier, names, netdev, steering, tunnel
from dom0.dataplane.classifier import Direction
from dom0.router import names as router_names
from vmnet.actions import Action, Kind
from vmnet.errors import NotFoundError, RefusedError, VmnetError
from vmnet.hypervisor.domains import Domains
from vmnet.store import JournalEntry

log = logging.getLogger(__name__)


def planned(actions: Iterable[Action], first: int = 0) -> list[JournalEntry]:
    """The journal's entries for ``actions``, each with its inverse, numbered from ``first``."""
    pairs = [(action, action.inverse()) for action in actions]
    return [
        JournalEntry(seq, action.to_json(), inverse.to_json() if inverse else None)
        for seq, (action, inverse) in enumerate(pairs, first)
    ]


async def undo(
    entries: Sequence[JournalEntry], domains: Domains | None, rerouter: Rerouter | None = None
) -> list[str]:
    """Put back, newest first, what the journal says may have been changed. Returns what was done, in words."""
    done = []
    for entry in sorted(entries, key=lambda one: one.seq, reverse=True):
        if entry.inverse is None or entry.state == "undone":
            continue
        action = Action.from_json(entry.inverse)
        try:
            await perform(action, domains, rerouter)
        except (VmnetError, OSError) as error:
            log.warning("cannot %s: %s", action.describe(), error)
            continue
        done.append(action.describe())
    return done


def _check_is_ours(kind: Kind, target: str) -> None:
    """RefusedError for a device that no migration changes: whoever writes the store would else change any device of this host."""
    if names.is_ours(target):
        return
    at_taps = kind in (Kind.NO_GATE, Kind.NO_WIRE, Kind.QUEUE, Kind.NO_STEER) and netdev.exists(target)
    foreign = at_taps and not (router_names.is_port(target) or netdev.is_tap(target))
    if foreign or kind in (Kind.NO_TUNNEL, Kind.LEAVE):
        raise RefusedError(
            f"{target!r} is neither vmnet's nor a VM's tap", "somebody else has written that into the store"
        )


def _no_steer(tap: str) -> None:
    with contextlib.suppress(ProcessLookupError):
        steering.as_usual(tap)


async def perform(action: Action, domains: Domains | None, rerouter: Rerouter | None = None) -> None:
    """One undoing action. OSError or VmnetError if it is needed and fails."""
    kind, target = action.kind, action.target
    _check_is_ours(kind, target)
    if kind is Kind.NO_TUNNEL:
        await asyncio.to_thread(tunnel.delete, target)
    elif kind is Kind.NO_GATE:
        await asyncio.to_thread(classifier.detach, target, Direction.EGRESS)
    elif kind is Kind.NO_WIRE:
        await asyncio.to_thread(classifier.detach, target, Direction.INGRESS)
    elif kind is Kind.QUEUE:
        if netdev.exists(target):
            netdev.set_queue_length(target, int(action.value))
    elif kind is Kind.NO_STEER:
        await asyncio.to_thread(_no_steer, target)
    elif kind is Kind.LEAVE:
        await bridges.leave(target, BridgePort.parse(action.value).bridge)
    elif kind is Kind.REROUTE_BACK:
        if rerouter is None:
            raise RefusedError("there is no [rerouter] any more", "configure it again")
        await rerouter.roll_back(fabric.decode(action.value))
    elif kind is Kind.RESUME and domains is not None:
        with contextlib.suppress(NotFoundError):
            if not (await domains.find(target)).running:
                await domains.resume(target)
