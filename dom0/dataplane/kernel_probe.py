"""What the data path needs of this kernel, each part tried for real: in a network namespace that nobody else sees.

Kernels lack modules, limit lengths, or forbid priorities, and no version number tells. ``vmnet doctor`` shows the findings.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dom0.dataplane import grace, netns, tcx, tunnel
from dom0.dataplane.gate import Bounds, Gate
from dom0.dataplane.gate_program import Mode
from dom0.dataplane.park import Park
from dom0.dataplane.priority import CHANGING
from dom0.dataplane.recorder import Recorder

_TAP, _TUNNEL = "vmqprobe0", "vmqprobe1"
_BOUNDS = Bounds(100, 1 << 20)
_MTU_BYTES: Final = 1500
_RING_BYTES: Final = 1 << 20
_VNI: Final = 1


@dataclass(frozen=True)
class Finding:
    """``needed``: without it no VM can migrate with vmnet; else vmnet does with less, as ``detail`` says."""

    what: str
    works: bool
    needed: bool
    detail: str


def examine() -> list[Finding]:
    """Blocks up to 0.5 s. A part that cannot be tried is a finding, never an error."""
    try:
        return [*netns.call_apart(_devices), _priority(), _grace(), _vhost()]
    except OSError as error:
        return [Finding("namespace", False, True, f"cannot make a network namespace: {error.strerror}")]


def _devices() -> list[Finding]:
    tunnelled = _tried("tunnel", "a VXLAN device can be made", "modprobe vxlan", _vxlan)
    try:
        park = Park(_TAP, _BOUNDS.packets, _MTU_BYTES, gated=False)
    except OSError as error:
        return [_missing("hold queue", error, "modprobe tun"), tunnelled]
    with closing(park):
        held = Finding("hold queue", True, True, "a tap keeps frames with their offload headers")
        return [held, tunnelled, *_on_tap()]


def _on_tap() -> list[Finding]:
    return [
        _tried("gate", _gate_place(), "Linux 5.10 or newer is needed", _gate),
        _tried(
            "recorder",
            "a packet ring (TPACKET_V3) copies what enters a tap",
            "modprobe af_packet",
            lambda: Recorder(_TAP, _RING_BYTES).close(),
        ),
    ]


def _tried(what: str, detail: str, hint: str, attempt: Callable[[], None]) -> Finding:
    try:
        attempt()
    except OSError as error:
        return _missing(what, error, hint)
    return Finding(what, True, True, detail)


def _missing(what: str, error: OSError, hint: str) -> Finding:
    return Finding(what, False, True, f"{error.strerror or error}: {hint}")


def _vxlan() -> None:
    tunnel.create(_TUNNEL, _VNI, "127.0.0.1", "127.0.0.2", _MTU_BYTES)


def _gate_place() -> str:
    if tcx.works():
        return "the kernel takes the gate's program, beside any qdisc (tcx)"
    return (
        "the kernel takes the gate's program in a qdisc clsact: a VM with a limit of what it sends is refused"
    )


def _gate() -> None:
    Gate(_TAP, 0, 0, _BOUNDS, Mode.PASS).close()


def _priority() -> Finding:
    """A thread of its own: its policy goes with it."""
    allowed: list[bool] = []

    def attempt() -> None:
        try:
            with CHANGING:
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
            allowed.append(True)
        except OSError:
            allowed.append(False)

    thread = threading.Thread(target=attempt, name="priority probe")
    thread.start()
    thread.join()
    works = allowed == [True]
    detail = (
        "real-time priority during a switchover is allowed"
        if works
        else "no real-time priority (CAP_SYS_NICE, or a control group without a share of it): on a busy host the gap is longer"
    )
    return Finding("priority", works, False, detail)


def _grace() -> Finding:
    works = grace.wait_for_frames_under_way()
    detail = (
        "the kernel says when all frames under way are through (membarrier)"
        if works
        else "no membarrier (nohz_full): frames under way are waited for by visiting each processor"
    )
    return Finding("barrier", works, False, detail)


def _vhost() -> Finding:
    there = Path("/dev/vhost-net").exists()
    detail = (
        "/dev/vhost-net is there: the kernel reads guests' taps, 64 frames at a time"
        if there
        else "no /dev/vhost-net: QEMU itself reads guests' taps"
    )
    return Finding("vhost-net", True, False, detail)
