"""The migration machine: one table of every transition, for the host a VM leaves and the host it comes to. Pure.

A migration has two sides, each driven by its own daemon with its own row of states:

source        PREFLIGHT -> STARTING -> PRECOPY -> SWITCHOVER -> STOPPED -> RESUMED -> FINISHING | LEFT -> DONE
              ... -> ABORTING -> ROLLING_BACK -> ROLLED_BACK, from any state before RESUMED
destination   PREPARING -> PREPARED -> READY -> EXPECTING -> RESUMED -> OPEN | PAUSED -> DONE
              ... -> ROLLING_BACK -> ROLLED_BACK, from any state before RESUMED

Resume at the destination is the point of no return: before it, everything is put back; after it, only forward. An abort may come too
late, so ABORTING asks the hypervisor first, and goes on forward if the guest has left. An event that the
table does not know in a state raises :class:`IllegalTransition`; those that may come late and mean nothing are listed as ignored.
The pictures in docs/architecture.md are drawn from this table by :func:`mermaid`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    SOURCE = "source"
    DESTINATION = "destination"


class State(Enum):
    PREFLIGHT = "preflight"
    STARTING = "starting"
    PREPARING = "preparing"
    PREPARED = "prepared"
    READY = "ready"
    PRECOPY = "pre-copy"
    SWITCHOVER = "switchover"
    STOPPED = "stop-and-copy"
    EXPECTING = "expecting"
    RESUMED = "resumed"
    PAUSED = "paused"
    OPEN = "open"
    FINISHING = "finishing"
    LEFT = "left"
    DONE = "done"
    ABORTING = "aborting"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"


class Event(Enum):
    ACCEPTED = "accepted"
    """Preflight said yes (managed migrations)."""
    CLAIMED = "claimed"
    """The destination's hook asked for this VM's migration."""
    AGREED = "agreed"
    """The source has answered: this migration, its interfaces, their tunnels."""
    TAP_READY = "tap-ready"
    """The destination's hypervisor has made the incoming guest and its taps."""
    PASS = "pass"
    """A pre-copy pass begins."""
    CONVERGED = "converged"
    """What is left to copy fits into the downtime asked for (managed)."""
    GUEST_STOPPED = "guest-stopped"
    """At the source: QEMU's STOP or libvirt's SUSPENDED."""
    GUEST_RUNNING = "guest-running"
    """Resumed on this host: success at the destination, a cancelled migration at the source."""
    EXPECT = "expect"
    """The source says that the switchover begins."""
    LINKS = "links"
    """The source of a router says that its data plane diverts: the links may move here."""
    ARRIVED_PAUSED = "arrived-paused"
    """The migration has succeeded, and the guest is not to run yet (``virsh migrate --suspend``)."""
    PEER_RESUMED = "peer-resumed"
    PEER_PAUSED = "peer-paused"
    MARKER = "marker"
    """The old path is empty, or has been silent for as long as we wait."""
    PEER_OPEN = "peer-open"
    FINISH = "finish"
    """The source says that nothing comes from it any more."""
    GONE = "gone"
    """The domain is no longer on this host."""
    CANCEL = "cancel"
    FAILED = "failed"
    STAYED = "stayed"
    """The hypervisor's migration has ended, and the guest is still at the source."""
    UNDONE = "undone"


class Step(Enum):
    """What a daemon does on a transition; the words are those of the dry run, the log and the journal."""

    START_MIGRATION = "start libvirt's live migration, peer to peer"
    GUARD_SOURCE = "put the gate on the guest's tap, and let it queue more; everything still passes"
    AWAIT_CLAIM = "give the destination's daemon more time to ask for the VM"
    ATTACH_SOURCE = "make the tunnel at the source, which nothing takes yet"
    EXPECT_PEER = "tell the destination to hold what arrives there directly"
    HOLD = "hold what is bound for the guest"
    RELEASE = "divert into the tunnel: what was held first, then everything that comes"
    SUSPEND = "stop the guest (the migration's last copy begins)"
    RECOVER = "find what the guest never took and send it ahead of what is held"
    PREPARE_FABRIC = "let the fabric make the new path, which nothing takes yet (where it is told)"
    CUT_OVER = "let the fabric send what is for the VM to the destination (where it is told)"
    FINISH_FABRIC = "make sure of the new path, and let the fabric remove the old one (where it is told)"
    RETURN_FABRIC = "let the fabric send here again, and get back what has gone to the destination"
    MOVE_LINKS = "let the destination's data plane forward (a router)"
    RETURN_LINKS = "forward here again (a router)"
    TAKE_LINKS = "announce the router's links here, then let in what arrives directly"
    STRETCH = "let the old host's bridge forward into the tunnel for good"
    ABORT_JOB = "abort libvirt's migration"
    REOPEN = "bring back what followed; let everything pass again"
    RESUME_GUEST = "resume the guest at the source if it is paused"
    CANCEL_PEER = "tell the destination that nothing comes"
    RETIRE_SOURCE = "give back what only a return would have needed"
    FINISH_PEER = "tell the destination that nothing comes any more"
    DETACH_SOURCE = "remove gate, park and tunnel at the source"
    PREPARE_DESTINATION = "make tunnel and park at the destination"
    ATTACH_DESTINATION = "put the gate on the incoming guest's tap; only the tunnel is let in"
    MAKE_ROOM = "empty the incoming guest's tap, and let it queue all that may have to wait"
    EXPECT = "hold what arrives directly"
    LET_IN = "lift the bounds on what the tunnel brings: the guest reads it"
    BIND = "bind the VM to this host with the next generation"
    ANNOUNCE = "announce the VM's addresses here (RARP, gratuitous ARP, unsolicited NA)"
    ANNOUNCE_AGAIN = "announce the VM's addresses here once more"
    TELL_RESUMED = "tell the source that the guest runs"
    TELL_PAUSED = "tell the source that the guest is here, and is not to run yet"
    TELL_FAILED = "tell the source that the guest does not come"
    OPEN = "let in what arrives directly, after all that came by the tunnel"
    TELL_OPEN = "tell the source that the direct path is open"
    DETACH_DESTINATION = "remove gate, park and tunnel at the destination"
    VERDICT = "give the verdict"


@dataclass(frozen=True)
class Row:
    role: Role
    state: State
    event: Event
    next: State
    steps: tuple[Step, ...] = ()


class IllegalTransition(Exception):
    """An event the table does not know in this state: a defect here or a peer that breaks the protocol."""


_S, _D = Role.SOURCE, Role.DESTINATION
_UNDO_SOURCE = (
    Step.RETURN_FABRIC,
    Step.RETURN_LINKS,
    Step.REOPEN,
    Step.RESUME_GUEST,
    Step.CANCEL_PEER,
    Step.DETACH_SOURCE,
)
_ATTACH = (Step.ATTACH_SOURCE, Step.PREPARE_FABRIC)
_HOLD = (Step.HOLD, Step.EXPECT_PEER, Step.CUT_OVER)
_STOPPED = (Step.MOVE_LINKS, Step.RECOVER)
_WAIT = (Step.ANNOUNCE, Step.TELL_PAUSED, Step.BIND)
"""What is sent to the VM from now on waits at its new host."""
_RESUME_LATE = (Step.LET_IN, Step.OPEN, Step.ANNOUNCE_AGAIN, Step.DETACH_DESTINATION, Step.VERDICT)
_RESUME = (Step.LET_IN, Step.ANNOUNCE, Step.TELL_RESUMED)
_CLOSE_SOURCE = (Step.RETIRE_SOURCE, Step.FINISH_FABRIC)
_FINISH = (Step.FINISH_PEER, Step.VERDICT, Step.DETACH_SOURCE)


def _aborts(states: Iterable[State], events: Iterable[Event]) -> list[Row]:
    """At the source the hypervisor has the last word: where the guest is when its migration has ended decides which way to go."""
    return [Row(_S, state, event, State.ABORTING, (Step.ABORT_JOB,)) for state in states for event in events]


def _unseen_stops(states: Iterable[State]) -> list[Row]:
    """At the source: libvirt, which would have told of the guest's stop, is away, and finishes the migration by itself."""
    steps = (*_STOPPED, Step.CUT_OVER, Step.STRETCH)
    return [
        row
        for state in states
        for row in (
            Row(_S, state, Event.PEER_RESUMED, State.RESUMED, steps),
            Row(_S, state, Event.PEER_PAUSED, State.FINISHING, (*steps, *_CLOSE_SOURCE)),
        )
    ]


TABLE: tuple[Row, ...] = (
    Row(_S, State.PREFLIGHT, Event.ACCEPTED, State.STARTING, (Step.GUARD_SOURCE, Step.START_MIGRATION)),
    Row(_S, State.PREFLIGHT, Event.CLAIMED, State.PRECOPY, (Step.GUARD_SOURCE, *_ATTACH)),
    Row(_S, State.PREFLIGHT, Event.FAILED, State.ROLLED_BACK),
    Row(_S, State.STARTING, Event.PASS, State.STARTING, (Step.AWAIT_CLAIM,)),
    Row(_S, State.STARTING, Event.CLAIMED, State.PRECOPY, _ATTACH),
    Row(_S, State.PRECOPY, Event.PASS, State.PRECOPY),
    Row(
        _S,
        State.PRECOPY,
        Event.CONVERGED,
        State.SWITCHOVER,
        (*_HOLD, Step.RELEASE, Step.SUSPEND),
    ),
    Row(_S, State.PRECOPY, Event.GUEST_STOPPED, State.STOPPED, (*_HOLD, *_STOPPED)),
    Row(_S, State.SWITCHOVER, Event.GUEST_STOPPED, State.STOPPED, _STOPPED),
    *_unseen_stops((State.PRECOPY, State.SWITCHOVER)),
    Row(_S, State.STOPPED, Event.PEER_RESUMED, State.RESUMED, (Step.STRETCH,)),
    Row(_S, State.STOPPED, Event.PEER_PAUSED, State.FINISHING, (Step.STRETCH, *_CLOSE_SOURCE)),
    Row(_S, State.RESUMED, Event.PEER_OPEN, State.FINISHING, _CLOSE_SOURCE),
    Row(_S, State.RESUMED, Event.PEER_PAUSED, State.FINISHING, _CLOSE_SOURCE),
    Row(_S, State.RESUMED, Event.GONE, State.LEFT),
    Row(_S, State.FINISHING, Event.GONE, State.DONE, _FINISH),
    Row(_S, State.LEFT, Event.PEER_OPEN, State.DONE, (Step.FINISH_FABRIC, *_FINISH)),
    Row(_S, State.LEFT, Event.PEER_PAUSED, State.DONE, (Step.FINISH_FABRIC, *_FINISH)),
    *_aborts((State.STARTING,), (Event.FAILED, Event.CANCEL, Event.GUEST_STOPPED, Event.GONE)),
    *_aborts((State.PRECOPY,), (Event.FAILED, Event.CANCEL, Event.GONE)),
    *_aborts((State.SWITCHOVER, State.STOPPED), (Event.FAILED, Event.CANCEL, Event.GUEST_RUNNING)),
    *_unseen_stops((State.ABORTING,)),
    Row(_S, State.ABORTING, Event.STAYED, State.ROLLING_BACK, _UNDO_SOURCE),
    Row(_S, State.ROLLING_BACK, Event.UNDONE, State.ROLLED_BACK, (Step.VERDICT,)),
    Row(_D, State.PREPARING, Event.AGREED, State.PREPARED, (Step.PREPARE_DESTINATION,)),
    Row(_D, State.PREPARED, Event.TAP_READY, State.READY, (Step.ATTACH_DESTINATION, Step.MAKE_ROOM)),
    Row(_D, State.READY, Event.EXPECT, State.EXPECTING, (Step.EXPECT,)),
    Row(_D, State.READY, Event.GUEST_RUNNING, State.RESUMED, (Step.EXPECT, *_RESUME)),
    Row(_D, State.READY, Event.LINKS, State.EXPECTING, (Step.EXPECT, Step.TAKE_LINKS)),
    Row(_D, State.EXPECTING, Event.LINKS, State.EXPECTING, (Step.TAKE_LINKS,)),
    Row(_D, State.RESUMED, Event.LINKS, State.RESUMED, (Step.TAKE_LINKS,)),
    Row(_D, State.EXPECTING, Event.GUEST_RUNNING, State.RESUMED, _RESUME),
    Row(_D, State.RESUMED, Event.MARKER, State.OPEN, (Step.OPEN, Step.TELL_OPEN, Step.BIND)),
    Row(_D, State.READY, Event.ARRIVED_PAUSED, State.PAUSED, (Step.EXPECT, *_WAIT)),
    Row(_D, State.EXPECTING, Event.ARRIVED_PAUSED, State.PAUSED, _WAIT),
    Row(_D, State.PAUSED, Event.LINKS, State.PAUSED, (Step.TAKE_LINKS,)),
    Row(_D, State.PAUSED, Event.FINISH, State.PAUSED),
    Row(_D, State.PAUSED, Event.GUEST_RUNNING, State.DONE, _RESUME_LATE),
    Row(_D, State.PAUSED, Event.GONE, State.DONE, (Step.DETACH_DESTINATION, Step.VERDICT)),
    Row(_D, State.OPEN, Event.FINISH, State.DONE, (Step.DETACH_DESTINATION, Step.VERDICT)),
    Row(_D, State.OPEN, Event.GONE, State.DONE, (Step.DETACH_DESTINATION, Step.VERDICT)),
    Row(_D, State.RESUMED, Event.GONE, State.DONE, (Step.DETACH_DESTINATION, Step.VERDICT)),
    *(
        Row(_D, state, event, State.ROLLING_BACK, (Step.DETACH_DESTINATION, Step.TELL_FAILED))
        for state in (State.PREPARING, State.PREPARED, State.READY, State.EXPECTING)
        for event in (Event.FAILED, Event.CANCEL, Event.GONE)
    ),
    Row(_D, State.ROLLING_BACK, Event.UNDONE, State.ROLLED_BACK, (Step.VERDICT,)),
)

_BY_KEY = {(row.role, row.state, row.event): row for row in TABLE}
assert len(_BY_KEY) == len(TABLE), "two rows for one event in one state"

FINAL = frozenset({State.DONE, State.ROLLED_BACK})
POINT_OF_NO_RETURN = State.RESUMED
GUEST_RUNS_AS_BEFORE = frozenset({State.PREPARING, State.PREPARED, State.READY, State.PRECOPY})
"""A migration that somebody else drives has not stopped its guest, and goes on without us."""
CAN_CANCEL = frozenset({State.STARTING, State.PRECOPY})
"""Nothing has been diverted, and the hypervisor has begun."""
_GIVEN_UP = {State.ABORTING, State.ROLLING_BACK}
_FORWARD_ONLY = {State.RESUMED, State.PAUSED, State.OPEN, State.FINISHING, State.LEFT, State.DONE}
_LATE: dict[Event, frozenset[State]] = {
    Event.STAYED: frozenset(State) - {State.ABORTING},
    Event.PASS: frozenset(State),
    Event.GUEST_STOPPED: frozenset(State) - {State.PRECOPY, State.SWITCHOVER, State.STARTING},
    Event.GUEST_RUNNING: frozenset(State)
    - {State.SWITCHOVER, State.STOPPED, State.READY, State.EXPECTING, State.PAUSED},
    Event.ARRIVED_PAUSED: frozenset(State) - {State.READY, State.EXPECTING},
    Event.CONVERGED: frozenset(State) - {State.PRECOPY},
    Event.MARKER: frozenset(State) - {State.RESUMED},
    Event.EXPECT: frozenset(State) - {State.READY},
    Event.LINKS: frozenset(State) - {State.READY, State.EXPECTING, State.RESUMED, State.PAUSED},
    Event.FAILED: frozenset(_FORWARD_ONLY | FINAL | _GIVEN_UP),
    Event.CANCEL: frozenset(_FORWARD_ONLY | FINAL | _GIVEN_UP | {State.PREFLIGHT}),
    Event.GONE: frozenset(
        FINAL | {State.ROLLING_BACK, State.PREFLIGHT, State.LEFT, State.STOPPED, State.SWITCHOVER}
    ),
    Event.PEER_RESUMED: frozenset(_FORWARD_ONLY | FINAL | {State.ROLLING_BACK}),
    Event.PEER_OPEN: frozenset(FINAL | _GIVEN_UP | {State.FINISHING}),
    Event.PEER_PAUSED: frozenset(FINAL | {State.FINISHING, State.ROLLING_BACK}),
    Event.FINISH: frozenset(FINAL | {State.ROLLING_BACK}),
    Event.UNDONE: frozenset(FINAL),
}
"""Events that may come late or twice and change nothing in these states."""


def step(role: Role, state: State, event: Event) -> Row | None:
    """What to do; None for an event that is late and means nothing any more. IllegalTransition if it can not happen."""
    row = _BY_KEY.get((role, state, event))
    if row is not None:
        return row
    if state in _LATE.get(event, ()):
        return None
    raise IllegalTransition(f"{role.value} in state {state.value!r} got {event.value!r}")


def can_roll_back(state: State) -> bool:
    """Whether a migration in ``state`` still ends with the VM at the source if it fails."""
    return state not in _FORWARD_ONLY and state not in FINAL


def mermaid(role: Role) -> str:
    """The role's part of the table as a Mermaid state diagram."""
    rows = [row for row in TABLE if row.role is role]
    first = rows[0].state
    lines = ["stateDiagram-v2", f"    [*] --> {_node(first)}"]
    grouped: dict[tuple[State, State], list[str]] = {}
    for row in rows:
        grouped.setdefault((row.state, row.next), []).append(row.event.value)
    lines += [
        f"    {_node(one)} --> {_node(other)}: {', '.join(events)}"
        for (one, other), events in grouped.items()
    ]
    lines += [f"    {_node(state)} --> [*]" for state in State if state in FINAL]
    return "\n".join(lines)


def _node(state: State) -> str:
    return state.name
