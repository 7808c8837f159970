"""Adds up what both sides counted to one verdict. Pure but for reading the counters."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dom0.dataplane.kernel_limits import short_queue
from vmnet.machine import State
from vmnet.verdict import Verdict
from vmnet.wire import one_line

_MOST_COUNTED = 1 << 53
_MOST_NOTES = 16

if TYPE_CHECKING:
    from dom0.source import SourceMigration


def source_verdict(one: SourceMigration) -> Verdict:
    """The whole migration's verdict, as the source knows it: its own counts and what the destination reported."""
    total_ms = (time.monotonic() - one.began) * 1000
    if one.state is State.DONE:
        return replace(_moved(one), total_ms=total_ms)
    reason = str(one.error) if one.error is not None else "cancelled"
    lost = sum(reopened.missing for reopened in one.reopened) + _dropped(one)
    return replace(_verdict(one, "rolled-back"), total_ms=total_ms, lost=lost, notes=(reason, *one.notes))


def _verdict(one: SourceMigration, outcome: str) -> Verdict:
    record, dropped = one.record, _dropped(one)
    slow = [f"{dropped} packets were more than the guest's queue takes: it was slow before it stopped"]
    notes = [*one.notes, *(slow if dropped else [])]
    if limit := _number({**one.opened, **one.final_counts}, "hold_limit"):
        notes.append(short_queue(record.destination, limit))
    notes = list(dict.fromkeys(notes))
    return Verdict(
        record.name,
        record.source,
        record.destination,
        record.mode,
        outcome,
        notes=tuple(notes),
        unprotected=one.unprotected,
    )


def _moved(one: SourceMigration) -> Verdict:
    there = {**one.opened, **one.final_counts}
    gates = [port.counts() for port in one.ports]
    unreceived, unaccounted = _across(one)
    without_flow = _number(there, "without_flow")
    notes = _notes_of_the_tunnel(one.record.destination, unreceived, unaccounted)
    if without_flow:
        notes.append(
            f"the Open vSwitch on {one.record.destination} had no flow yet for {without_flow} who send to the VM: "
            "their first packets may have overtaken each other"
        )
    far_on_ovs = one.far_on_ovs or there.get("far_on_ovs") is True
    if far_on_ovs:
        notes.append(
            "the VM's LAN is on an Open vSwitch that forwards, or has forwarded, for it to another host: "
            "as that changed, packets may have been lost or overtaken each other, uncounted"
        )
    if one.multi_queue:
        notes.append(
            f"{', '.join(one.multi_queue)}: the kernel takes other ones of several queues at a new host: "
            "packets of a flow may have overtaken each other"
        )
    if uncopied := sum(released.uncopied for released in one.released):
        notes.append(
            f"{uncopied} packets that the VM had not read when it stopped could not be sent after it: "
            "no copy was left (see [recorder] bytes)"
        )
    notes += _texts(there, "notes")
    notes += one.guest.notes(one.record.source, one.record.destination)
    if one.paused_there:
        notes.append(f"what comes for it waits on {one.record.destination}, until it is resumed there")
    verdict = _verdict(one, "done")
    bypassed = _bypassed(sum(gate.taken_away for gate in gates), one.record.source) + _bypassed(
        _number(there, "taken_away"), one.record.destination
    )
    stop, resume, divert = one.stop_ns, one.resume_ns, one.divert_ns
    return replace(
        verdict,
        notes=(*verdict.notes, *notes),
        unprotected=(*verdict.unprotected, *bypassed),
        unaccounted=unaccounted,
        paused=one.paused_there,
        lost=unreceived
        + sum(gate.overflow for gate in gates)
        + sum(released.missing for released in one.released)
        + _dropped(one)
        + _number(there, "overflow")
        + _number(there, "missing"),
        possible_duplicates=sum(released.possible_duplicates for released in one.released),
        ordered=there.get("ordered") is True
        and one.followed_in_order
        and not without_flow
        and not far_on_ovs
        and not one.multi_queue
        and (one.fabric is None or one.fabric.in_order),
        held=sum(released.parked for released in one.released),
        stranded=sum(released.stranded for released in one.released),
        diverted=sum(gate.diverted for gate in gates),
        direct=_number(there, "direct"),
        duplicates_removed=_number(there, "twice"),
        compute_downtime_ms=(resume - stop) / 1e6 if stop and resume else None,
        network_gap_ms=_longest(_gap_ms(stop, divert, resume), _number(there, "direct_wait_ms")),
        passes=one.passes,
        memory_bytes=one.watch.processed_bytes if one.watch is not None else 0,
        generation=_number(there, "generation"),
        connections=one.guest.connections.carried,
        rerouted=None if one.fabric is None else one.fabric.finished,
    )


def _bypassed(times: int, host: str) -> list[str]:
    """For :attr:`Verdict.unprotected`."""
    return (
        [f"the VM's tap on {host}, as another program took vmnet's gate away ({times} times)"]
        if times
        else []
    )


def _longest(gap_ms: float | None, direct_wait_ms: int) -> float | None:
    """What arrived directly at an interface may have waited for longer than the VM stood still."""
    return None if gap_ms is None else max(gap_ms, float(direct_wait_ms))


def _gap_ms(stop_ns: int | None, divert_ns: int | None, resume_ns: int | None) -> float | None:
    """None where the stop was not told and the guest ran again before anything was diverted."""
    if divert_ns is None or resume_ns is None:
        return None
    began_ns = min(divert_ns, stop_ns or divert_ns)
    return (resume_ns - began_ns) / 1e6 if began_ns <= resume_ns else None


def _across(one: SourceMigration) -> tuple[int, int]:
    """Of the frames sent into the tunnels: how many are known not to have come out, and of how many nobody knows."""
    if isinstance(one.final_counts.get("unreceived"), int):
        return _number(one.final_counts, "unreceived"), 0
    return 0, sum(one.tunnel_sent)


def _notes_of_the_tunnel(destination: str, unreceived: int, unaccounted: int) -> list[str]:
    if unreceived:
        return [
            f"{unreceived} packets went into the tunnel to {destination} and did not come out of it: "
            "see its firewall (UDP port of the tunnel) and the loss between the hosts"
        ]
    if unaccounted:
        return [f"{destination} did not say how many packets it received: {unaccounted} went into the tunnel"]
    return []


def _dropped(one: SourceMigration) -> int:
    return sum(released.dropped for released in one.released)


def _number(counts: dict[str, Any], name: str) -> int:
    """What a peer has counted; it may send anything."""
    value = counts.get(name, 0)
    return min(max(value, 0), _MOST_COUNTED) if type(value) is int else 0


def _texts(counts: dict[str, Any], name: str) -> list[str]:
    """What a peer remarks; it may send anything."""
    value = counts.get(name)
    texts = [one_line(one) for one in value[:_MOST_NOTES]] if isinstance(value, list) else []
    return [one for one in texts if one]
