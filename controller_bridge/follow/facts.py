"""What a decision is made from: the VM, its hosts, its clients, and what is asked for. Frozen, and checked once they exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vmnet.errors import ConfigError, NotFoundError

MIB = 1 << 20


@dataclass(frozen=True)
class Host:
    """A host as psutil sees it, with everything that runs there now, the VM included if it does.

    ConfigError if a number cannot be.
    """

    cpu_percent: float
    """``psutil.cpu_percent()``: of all processors together, 0 to 100."""
    cpus: int
    """``psutil.cpu_count()``."""
    memory_available_bytes: int
    """``psutil.virtual_memory().available``."""
    memory_total_bytes: int

    def __post_init__(self) -> None:
        if not 0 <= self.cpu_percent <= 100:
            raise ConfigError(f"a host's CPU load must be 0 to 100 %, is {self.cpu_percent}")
        if (
            self.cpus < 1
            or not 0 <= self.memory_available_bytes <= self.memory_total_bytes
            or not self.memory_total_bytes
        ):
            raise ConfigError(f"a host cannot be so: {self}")


@dataclass(frozen=True)
class Vm:
    """ConfigError if a number cannot be."""

    name: str
    host: str
    memory_bytes: int
    cpus_busy: float = 0.0
    """How many processors it keeps busy, such as 0.3."""

    def __post_init__(self) -> None:
        if self.memory_bytes < 0 or not (math.isfinite(self.cpus_busy) and self.cpus_busy >= 0):
            raise ConfigError(f"a VM cannot be so: {self}")


@dataclass(frozen=True)
class Limits:
    """What keeps a VM from being moved. ConfigError if a gain is not above zero: a VM would be moved for nothing."""

    gain_hops: float = 0.5
    """``nearest``: so many links less, on the average of all bytes."""
    gain_percent: float = 10.0
    """``load`` and ``pack``: so many percentage points."""
    pause_s: float = 60.0
    """Between two moves of one VM."""
    cpu_most_percent: float = 85.0
    """No host gets a VM that would bring it above."""
    memory_spare_bytes: int = 256 * MIB
    """Nor one that would leave it less memory than this."""

    def __post_init__(self) -> None:
        for name, gain in (("gain_hops", self.gain_hops), ("gain_percent", self.gain_percent)):
            if not (math.isfinite(gain) and gain > 0):
                raise ConfigError(f"{name} must be above 0, is {gain}")
        if not (math.isfinite(self.pause_s) and self.pause_s >= 0):
            raise ConfigError(f"pause_s must not be negative, is {self.pause_s}")


@dataclass(frozen=True)
class Situation:
    """ConfigError if a client's traffic cannot be, NotFoundError if nothing is known of the host that the VM is on."""

    vm: Vm
    hosts: Mapping[str, Host]
    hops: Mapping[str, Mapping[str, int]]
    """Host -> client -> links between them (:mod:`controller_bridge.follow.ways`). Absent: out of reach, or not known."""
    traffic: Mapping[str, float]
    """Client -> bytes a second between it and the VM, both ways."""

    def __post_init__(self) -> None:
        if self.vm.host not in self.hosts:
            raise NotFoundError(
                f"nothing is known of {self.vm.host}, where {self.vm.name} runs",
                f"known: {', '.join(self.hosts) or 'no host'}",
            )
        for client, rate in self.traffic.items():
            if not (math.isfinite(rate) and rate >= 0):
                raise ConfigError(f"the traffic of {client} must be 0 bytes a second or more, is {rate}")
