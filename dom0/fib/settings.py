"""Times and limits of the synchronisation of one router's FIB."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FibSettings:
    """``settle_s``: how long a session without an end mark tells nothing for the first time before its table counts as whole.
    ``restart_s``: at least so long after a reconnection. ``alive_s``: an acknowledgement older than this is no sign of life.
    ``addresses_s``: how long routes wait for the addresses of an agent. ``hold_s``: how long a deletion waits for the route that may
    follow it.
    """

    settle_s: float = 3.0
    restart_s: float = 30.0
    alive_s: float = 2.5
    addresses_s: float = 2.0
    hold_s: float = 0.02
    fpm_port: int = 2620
    agent_port: int = 2621
    read_bytes: int = 24 << 10
