"""What both hosts' ports of one migrating interface are told."""

from __future__ import annotations

from dataclasses import dataclass

from dom0.dataplane.gate import Bounds


@dataclass(frozen=True)
class PortSettings:
    """The guest's MAC (6 bytes), the tunnel's id and ends (empty if not known yet), how much may wait, and how much is remembered."""

    mac: bytes
    vni: int
    local: str
    remote: str
    bounds: Bounds
    recorder_bytes: int
