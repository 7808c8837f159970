"""What a hypervisor tells us, as data. Pure; the adapter in :mod:`vmnet.hypervisor.connection` makes these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Happening(Enum):
    """Life of a domain on one host, and the two QEMU moments that libvirt reports milliseconds later."""

    STARTED = "started"
    STOPPED = "stopped"
    """The domain is gone from this host."""
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    GUEST_STOP = "guest-stop"
    """QEMU's STOP, with its microsecond."""
    GUEST_RESUME = "guest-resume"
    PASS = "pass"
    """A pre-copy pass begins (MIGRATION_ITERATION)."""
    JOB_COMPLETED = "job-completed"
    DEFINED = "defined"


@dataclass(frozen=True)
class DomainEvent:
    """``time_ns``: CLOCK_REALTIME of when it happened (QEMU's own stamp for the guest moments, else of its arrival)."""

    happening: Happening
    uuid: str
    name: str
    time_ns: int
    detail: str = ""
    number: int = 0


@dataclass(frozen=True)
class JobProgress:
    """Progress of an outgoing migration (virDomainGetJobStats); ``passes`` counts bitmap synchronisations."""

    active: bool
    elapsed_ms: int = 0
    memory_total_bytes: int = 0
    memory_processed_bytes: int = 0
    memory_remaining_bytes: int = 0
    memory_bps: int = 0
    dirty_bps: int = 0
    page_size_bytes: int = 4096
    passes: int = 0
    downtime_ms: int = 0
    setup_ms: int = 0
