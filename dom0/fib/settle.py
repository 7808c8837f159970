"""When the table of a sender that marks no end (FRR 8's FPM) counts as whole. Pure: the clock is an argument."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dom0.fib.settings import FibSettings


@dataclass(frozen=True, slots=True)
class Quiet:
    """What is known of a session; times are of one monotonic clock, in seconds.

    ``alive_since``: since when every sign of life came in time; None while the link counts as dead. ``dead_s``: how long the last dead
    time was: TCP backs off by doubling, so its next try may come as much later again.
    """

    connected_at: float
    last_message_at: float
    replaces: bool
    alive_since: float | None
    last_alive_at: float
    dead_s: float = 0.0


def connected(now: float, replaces: bool) -> Quiet:
    """``replaces``: the namespace holds routes of an earlier session, which a sweep would take away."""
    return Quiet(now, now, replaces, now, now)


def heard(quiet: Quiet, now: float) -> Quiet:
    """Something was told for the first time in this session."""
    return replace(quiet, last_message_at=now)


def looked(quiet: Quiet, now: float, ack_age_s: float, settings: FibSettings) -> Quiet:
    """The kernel says that the peer last acknowledged something ``ack_age_s`` ago."""
    alive_at = max(quiet.last_alive_at, now - ack_age_s)
    if now - alive_at > settings.alive_s:
        return replace(quiet, last_alive_at=alive_at, alive_since=None)
    if quiet.alive_since is not None and alive_at - quiet.last_alive_at <= settings.alive_s:
        return replace(quiet, last_alive_at=alive_at)
    dead_s = alive_at - quiet.last_alive_at
    return replace(quiet, last_alive_at=alive_at, alive_since=alive_at, dead_s=max(dead_s, quiet.dead_s))


def due_at(quiet: Quiet, settings: FibSettings) -> float | None:
    """From when on the table counts as whole if nothing new is heard; None while the link is dead."""
    if quiet.alive_since is None:
        return None
    calm = max(quiet.last_message_at, quiet.alive_since + quiet.dead_s) + settings.settle_s
    return max(calm, quiet.connected_at + (settings.restart_s if quiet.replaces else 0.0))


def whole(quiet: Quiet, now: float, settings: FibSettings) -> bool:
    """Nothing new came for so long, from a sender that was there all the time, that nothing more is to come."""
    due = due_at(quiet, settings)
    return due is not None and now >= due and now - quiet.last_alive_at <= settings.alive_s
