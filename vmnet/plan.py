"""A migration's plan in words: the machine's own steps, in the order in which they will be taken. Pure."""

from __future__ import annotations

from vmnet.domain_xml import DomainInfo
from vmnet.machine import TABLE, Event, Role, Row, State, Step

_LINKS: tuple[tuple[Role, State, Event], ...] = (
    (Role.SOURCE, State.SWITCHOVER, Event.GUEST_STOPPED),
    (Role.DESTINATION, State.EXPECTING, Event.LINKS),
)
"""Only a router's data plane and links move apart from its VM."""
_TOLD = {Step.PREPARE_FABRIC, Step.CUT_OVER, Step.FINISH_FABRIC}
_ROUTE: tuple[tuple[Role, State, Event], ...] = (
    (Role.SOURCE, State.PREFLIGHT, Event.ACCEPTED),
    (Role.SOURCE, State.STARTING, Event.CLAIMED),
    (Role.DESTINATION, State.PREPARING, Event.AGREED),
    (Role.DESTINATION, State.PREPARED, Event.TAP_READY),
    (Role.SOURCE, State.PRECOPY, Event.CONVERGED),
    (Role.DESTINATION, State.READY, Event.EXPECT),
    *_LINKS,
    (Role.DESTINATION, State.EXPECTING, Event.GUEST_RUNNING),
    (Role.DESTINATION, State.RESUMED, Event.MARKER),
    (Role.SOURCE, State.RESUMED, Event.PEER_OPEN),
    (Role.SOURCE, State.FINISHING, Event.GONE),
    (Role.DESTINATION, State.OPEN, Event.FINISH),
)


def _row(role: Role, state: State, event: Event) -> Row:
    return next(row for row in TABLE if (row.role, row.state, row.event) == (role, state, event))


def plan_lines(info: DomainInfo, source: str, destination: str, told: bool = False) -> list[str]:
    """What ``vmnet migrate --dry-run`` prints, one line a step: where, when, what. ``told``: the fabric is (``[rerouter]``)."""
    lines = []
    hosts = {Role.SOURCE: source, Role.DESTINATION: destination}
    for key in _ROUTE:
        if key in _LINKS and info.router is None:
            continue
        row = _row(*key)
        lines += [
            f"{hosts[row.role]}: on {row.event.value}: {one.value}"
            for one in row.steps
            if told or one not in _TOLD
        ]
    macs = ", ".join(f"{one.mac} on {one.bridge or one.kind}" for one in info.interfaces)
    return [
        f"VM {info.name} ({info.memory_kib >> 10} MiB, {macs}) goes from {source} to {destination}",
        *lines,
    ]
