"""When to stop the guest: the one decision of a managed pre-copy. Pure; the clock is in the samples.

libvirt cannot hold QEMU at the end of pre-copy, so QEMU is told to be content with less downtime than we are, and we stop the guest
ourselves when what is left fits. Plain libvirt stops when 300 ms worth is left; we go on nearly to the end of the pass, which costs
nothing while the guest runs and shortens the downtime.

Under TCG (software emulation) QEMU loses a guest's writes now and then when a page is copied again while the guest runs: guests were
seen to crash after migrations of three passes and more, with plain libvirt as well. There it is not made to go on for so long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmnet.hypervisor.events import JobProgress

_MARGIN_S: Final = 0.08
"""How much more than QEMU would stop for may be left when we stop the guest: enough to be sure to come first."""
SHORTEST_PASS_S: Final = 0.5
"""A small guest's memory is copied in the blink of an eye, and QEMU would be done before we have looked once."""
NO_LIMIT_MIBPS: Final = 1_000_000
_UNKNOWN_ALLOWANCE: Final = 3.0
_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.006, 0.25


@dataclass(frozen=True)
class Decision:
    """``switch``: stop the guest now. Else look again after ``poll_s``. ``expected_ms``: downtime if it were stopped now."""

    switch: bool
    poll_s: float
    expected_ms: float


def qemu_downtime_ms(driver: str) -> int:
    """What QEMU is told to converge to by itself; ``driver`` is the domain's type ("kvm", or "qemu" for TCG)."""
    return 100 if driver == "qemu" else 1


def first_speed_mibps(memory_kib: int) -> int:
    """The bandwidth limit to begin with, MiB/s: lets the whole memory pass in no less than :data:`SHORTEST_PASS_S`."""
    return max(32, round(memory_kib / 1024 / SHORTEST_PASS_S))


def decide(job: JobProgress, pass_s: float, max_downtime_ms: int, own_downtime_ms: int) -> Decision:
    """``pass_s``: seconds since the present pass began; ``own_downtime_ms``: what QEMU would stop for by itself.

    In the first pass QEMU does not know yet how fast the guest dirties its memory: all that was sent counts as dirty again, and the
    limit counts three times. (QEMU can be asked to measure it beforehand, but is then deaf for the whole first pass.)
    """
    if not job.active or not job.memory_total_bytes or not job.memory_bps:
        return Decision(False, _SHORTEST_POLL_S, 0.0)
    dirty_bps = job.dirty_bps or None
    sent = min(job.memory_processed_bytes, job.memory_total_bytes)
    dirtied = sent if dirty_bps is None else min(sent, dirty_bps * pass_s)
    limit_ms = max_downtime_ms * (_UNKNOWN_ALLOWANCE if dirty_bps is None else 1.0)
    remaining_s = job.memory_remaining_bytes / job.memory_bps
    expected_ms = (remaining_s + dirtied / job.memory_bps) * 1000
    tail_s = own_downtime_ms / 1000 + _MARGIN_S
    if remaining_s <= tail_s and expected_ms <= limit_ms:
        return Decision(True, 0.0, expected_ms)
    wait_s = (remaining_s - tail_s) / 3
    return Decision(False, min(max(wait_s, _SHORTEST_POLL_S), _LONGEST_POLL_S), expected_ms)
