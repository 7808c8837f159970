"""When to stop the guest: the one decision of a managed pre-copy. Pure; the clock is in the samples.

libvirt cannot hold QEMU at the end of pre-copy, so QEMU is told to be content with less downtime than we are, and we stop the guest
ourselves when what is left fits. Plain libvirt stops when 300 ms worth is left; we go on nearly to the end of the pass, which costs
nothing while the guest runs and shortens the downtime.

Where libvirt answers slowly (a busy host), our looks are too rare to come upon the end of a pass. So a look that takes long counts as
time that has gone already, and after one pass that ended unseen the guest is stopped as soon as what is left fits.

Under TCG (software emulation) QEMU loses a guest's writes now and then when a page is copied again while the guest runs: guests were
seen to crash after migrations of three passes and more, with plain libvirt as well. There it is not made to go on for so long: we stop
the guest sooner, and QEMU does from the second pass on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmnet.hypervisor.events import JobProgress

_MARGIN_S: Final = 0.08
"""How much more than QEMU would stop for may be left when we stop the guest: enough to be sure to come first."""
_BLIND_S: Final = 0.1
"""How long QEMU does not know its own bandwidth (BUFFER_DELAY, migration/migration.c), and so does not stop for anything left."""
_BLIND_DECIDES_S: Final = 0.045
_BLIND_TAIL_S: Final = 0.04
_UNKNOWN_ALLOWANCE: Final = 3.0
QEMU_WAITS_MS: Final = 1
"""What QEMU is told to converge to in its first pass, and from when we have decided: so it does not come before us."""
_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.006, 0.25
_NEAR_S: Final = 0.03
_LATER_PART: Final = 0.5
"""Of the first pass's bandwidth that later ones are taken to have at least. QEMU's own figure is of the last 0.1 s, and near nothing
when a short pass has just begun: with it, nothing ever seemed to fit (23 passes)."""
_ZEROS_BPS: Final = 4e9
"""As fast as QEMU goes over pages of zeros, which it does not send: the bandwidth known so far says nothing of them (measured: 75 MB/s
known, and 120 MB passed in 0.1 s)."""


@dataclass(frozen=True)
class Decision:
    """``switch``: stop the guest now. Else look again after ``poll_s``. ``expected_ms``: downtime if it were stopped now.

    ``fits``: that is little enough. ``near``: that look, soon, may be the last; it must not be late.
    """

    switch: bool
    poll_s: float
    expected_ms: float
    near: bool = False
    fits: bool = False


@dataclass(frozen=True)
class Looks:
    """How the looks at the progress have gone so far.

    ``took_s``: the last one. ``missed``: passes that ended without us, although what was left had been little enough in them.

    ``first_pass_bps``: how fast the first pass went; 0: it has not ended.
    """

    took_s: float = 0.0
    missed: int = 0
    first_pass_bps: float = 0.0


def qemu_downtime_ms(driver: str) -> int:
    """What QEMU is told to converge to after its first pass; ``driver``: the domain's type, "kvm", or "qemu" for TCG.

    In the first pass we always come before it, by the same measure; if our look is late, it goes on into a second one.
    """
    return 100 if driver == "qemu" else QEMU_WAITS_MS


def decide(
    job: JobProgress, pass_s: float, max_downtime_ms: int, own_downtime_ms: int, looks: Looks = Looks()
) -> Decision:
    """``pass_s``: seconds since the present pass began; ``own_downtime_ms``: what QEMU would stop for by itself.

    In the first pass QEMU does not know yet how fast the guest dirties its memory: all that was sent counts as dirty again, and the
    limit counts three times. (QEMU can be asked to measure it beforehand, but is then deaf for the whole first pass.) QEMU itself does
    not ask what has been dirtied: where it would stop for what is left, we come first. A small guest's pass is over before QEMU knows
    even its bandwidth; then we go by how fast the rest has shrunk.
    """
    bps = max(job.memory_bps or _shrinking_bps(job, pass_s), looks.first_pass_bps * _LATER_PART)
    if not job.active or not job.memory_total_bytes or not bps:
        return Decision(False, _SHORTEST_POLL_S, 0.0)
    dirty_bps = job.dirty_bps or None
    sent = min(job.memory_processed_bytes, job.memory_total_bytes)
    dirtied = sent if dirty_bps is None else min(sent, dirty_bps * pass_s)
    limit_ms = max_downtime_ms * (_UNKNOWN_ALLOWANCE if dirty_bps is None else 1.0)
    remaining_s = job.memory_remaining_bytes / bps
    expected_ms = (remaining_s + dirtied / bps) * 1000
    fits = expected_ms <= limit_ms
    may_stop = fits or (dirty_bps is None and own_downtime_ms > QEMU_WAITS_MS)
    tail_s = _tail_s(bool(job.memory_bps), pass_s, own_downtime_ms) + looks.took_s
    if (may_stop and remaining_s <= tail_s) or (fits and looks.missed):
        return Decision(True, 0.0, expected_ms, fits=fits)
    wait_s = (remaining_s - tail_s) / 3
    if not job.memory_bps:  # what is known so far is from a pass that has hardly begun
        wait_s = min(wait_s, _BLIND_DECIDES_S - pass_s)
    if job.passes <= 1:  # later passes go over what the guest has written
        wait_s = min(wait_s, job.memory_remaining_bytes / _ZEROS_BPS)
    poll_s = min(max(wait_s, _SHORTEST_POLL_S), _LONGEST_POLL_S)
    return Decision(False, poll_s, expected_ms, near=may_stop and poll_s <= _NEAR_S, fits=fits)


def _shrinking_bps(job: JobProgress, pass_s: float) -> float:
    """Bytes a second by which what is left has shrunk in the first pass; pages of zeros count whole, as they do in what is left."""
    done = job.memory_total_bytes - job.memory_remaining_bytes
    return done / pass_s if job.passes <= 1 and done > 0 and 0 < pass_s < _BLIND_S else 0.0


def _tail_s(known: bool, pass_s: float, own_downtime_ms: int) -> float:
    """With this many seconds left the guest is stopped. As long as QEMU is blind there is no hurry, but not for long any more."""
    tail_s = own_downtime_ms / 1000 + _MARGIN_S
    return tail_s if known or pass_s >= _BLIND_DECIDES_S else min(tail_s, _BLIND_TAIL_S)
