"""What every migration on this host shares: configuration, store, hypervisor, peers, and who wants to hear of events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controller_bridge.rerouters.base import Rerouter
from dom0.dataplane import priority
from dom0.dataplane.kernel_limits import KernelLimits
from dom0.dataplane.priority import Hurry
from dom0.marks import HookMarks
from dom0.router.registry import Routers
from dom0.tunnel_filter import TunnelFilter
from vmnet.config import Config
from vmnet.hypervisor.connection import Connection
from vmnet.hypervisor.domains import Domains
from vmnet.peer import PeerClient
from vmnet.store import Store


@dataclass
class Context:
    config: Config
    store: Store
    connection: Connection
    domains: Domains
    marks: HookMarks
    routers: Routers
    tunnel_filter: TunnelFilter
    peers: dict[str, PeerClient] = field(default_factory=dict)
    publish: Callable[[str, dict[str, Any]], None] = lambda migration_id, event: None
    hurry: Hurry = field(default_factory=lambda: Hurry(priority.real_time))
    rerouter: Rerouter | None = None
    """Of the fabric, if it is to be told; None: it learns by itself."""
    limits: KernelLimits = field(default_factory=lambda: KernelLimits(0, 0))
    """What the kernel gives; ``config.hold`` is within it."""
    favour: Hurry = field(default_factory=lambda: Hurry(priority.favour))

    @property
    def host(self) -> str:
        return self.config.host.name

    def segment_of(self, bridge: str) -> str:
        """The LAN a bridge of this host belongs to; bridges nobody configured are all of one LAN."""
        known = self.config.bridges.get(bridge)
        return known.segment if known is not None else "lan"
