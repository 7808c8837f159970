"""Both sides' tables, a hypervisor and a channel that loses, doubles and reorders: whatever happens, both ends agree.

The model does to the VM what the steps say; the hypervisor alone decides whether the VM has left. What one host's hypervisor says
comes in order; what the peer says comes in any order, twice, or not at all. Deadlines (events that a
driver posts when nothing came) are taken when nothing else is left to happen.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from vmnet.machine import Event, IllegalTransition, Role, State, Step, can_roll_back, step

S, D = Role.SOURCE, Role.DESTINATION
SAYS = {
    Step.EXPECT_PEER: (D, Event.EXPECT),
    Step.CANCEL_PEER: (D, Event.CANCEL),
    Step.FINISH_PEER: (D, Event.FINISH),
    Step.TELL_RESUMED: (S, Event.PEER_RESUMED),
    Step.TELL_OPEN: (S, Event.PEER_OPEN),
    Step.TELL_FAILED: (S, Event.FAILED),
}
DEADLINES = {
    (S, State.STARTING): Event.FAILED,
    (S, State.PRECOPY): Event.FAILED,
    (S, State.SWITCHOVER): Event.FAILED,
    (S, State.STOPPED): Event.PEER_RESUMED,
    (S, State.RESUMED): Event.PEER_OPEN,
    (S, State.LEFT): Event.PEER_OPEN,
    (D, State.PREPARING): Event.FAILED,
    (D, State.RESUMED): Event.MARKER,
    (D, State.OPEN): Event.FINISH,
}


@dataclass
class World:
    choose: Callable[[int, int], int]
    at: dict[Role, State] = field(default_factory=lambda: {S: State.PREFLIGHT, D: State.PREPARING})
    vm: str = "source"
    job: str = "none"
    under_way: list[tuple[Role, Event]] = field(default_factory=list)
    local: dict[Role, list[Event]] = field(default_factory=lambda: {S: [], D: []})
    done: list[tuple[Role, Step]] = field(default_factory=list)
    late_cancel: bool = False

    def happen(self, role: Role, event: Event) -> None:
        try:
            row = step(role, self.at[role], event)
        except IllegalTransition:
            return
        if row is None:
            return
        self.at[role] = row.next
        for one in row.steps:
            self.done.append((role, one))
            self.perform(one)
        if row.next is State.ABORTING:  # by now the hypervisor has decided
            self.happen(role, Event.PEER_RESUMED if self.job == "completed" else Event.STAYED)
        if row.next is State.ROLLING_BACK:
            self.happen(role, Event.UNDONE)

    def perform(self, one: Step) -> None:
        if one in SAYS:
            self.under_way += [SAYS[one]] * self.choose(0, 2)
        elif one is Step.START_MIGRATION:
            self.job = "under way"
        elif one is Step.SUSPEND and self.vm == "source":
            self.vm = "nowhere"
            self.local[S].append(Event.GUEST_STOPPED)
        elif one is Step.ABORT_JOB and self.job == "under way":
            self.fail()
        elif one is Step.RESUME_GUEST and self.job != "completed" and self.vm == "nowhere":
            self.vm = "source"

    def fail(self) -> None:
        self.job = "failed"
        self.local[S].append(Event.FAILED)
        self.local[D].append(Event.GONE)

    def hypervisor(self) -> list[str]:
        if self.job != "under way":
            return []
        if self.at[D] is State.PREPARING and self.at[S] is State.STARTING:
            return ["claim", "fail"]
        if self.at[D] is State.PREPARING:
            return ["fail"]
        if self.at[D] is State.PREPARED:
            return ["make tap", "fail"]
        return ["fail", "pass", "converge", "stop" if self.vm == "source" else "complete"]

    def move(self, what: str) -> None:
        if what == "claim":
            self.happen(S, Event.CLAIMED)
            self.local[D].append(Event.AGREED)
        elif what == "make tap":
            self.happen(D, Event.TAP_READY)
        elif what == "pass":
            self.happen(S, Event.PASS)
        elif what == "converge":
            self.happen(S, Event.CONVERGED)
        elif what == "stop":
            self.vm = "nowhere"
            self.local[S].append(Event.GUEST_STOPPED)
        elif what == "complete":
            self.vm, self.job = "destination", "completed"
            self.local[D].append(Event.GUEST_RUNNING)
            self.local[S].append(Event.GONE)
        elif what == "cancel":
            self.happen(S, Event.CANCEL)
        else:
            self.fail()

    def deliver(self) -> None:
        """One of what the hypervisors or the peers have said."""
        ready = [role for role in Role if self.local[role] and not self.stays(role)]
        nth = self.choose(0, len(ready) + len(self.under_way) - 1)
        if nth < len(ready):
            self.happen(ready[nth], self.local[ready[nth]].pop(0))
        else:
            self.happen(*self.under_way.pop(nth - len(ready)))

    def deliverable(self) -> bool:
        return bool(self.under_way) or any(self.local[role] and not self.stays(role) for role in Role)

    def stays(self, role: Role) -> bool:
        """The driver remembers that the guest has gone until the table can take it."""
        early = (State.STOPPED, State.SWITCHOVER)
        return role is S and self.local[S][0] is Event.GONE and self.at[S] in early

    def run(self) -> None:
        self.happen(S, Event.ACCEPTED)
        for _ in range(60):
            moves = self.hypervisor() + ["deliver"] * self.deliverable()
            if can_roll_back(self.at[S]) and (self.late_cancel or self.job != "completed"):
                moves.append("cancel")
            if not moves:
                break
            what = moves[self.choose(0, len(moves) - 1)]
            if what == "deliver":
                self.deliver()
            else:
                self.move(what)
        self.settle()

    def settle(self) -> None:
        """Nobody does anything any more but what is under way and the deadlines."""
        if self.job == "under way":
            self.fail()
        for _ in range(60):
            if self.deliverable():
                self.deliver()
                continue
            late = [
                (role, DEADLINES[role, state])
                for role, state in self.at.items()
                if (role, state) in DEADLINES
            ]
            if not late:
                break
            for role, event in late:
                self.happen(role, event)


def check(world: World) -> None:
    world.run()
    story = f"{world.at} {world.vm} {world.job} {world.done}"
    assert world.vm == ("destination" if world.job == "completed" else "source"), story
    assert world.at[S] is (State.DONE if world.vm == "destination" else State.ROLLED_BACK), story
    assert world.at[D] is (State.DONE if world.vm == "destination" else State.ROLLED_BACK), story
    assert ((D, Step.BIND) in world.done) <= (world.vm == "destination"), story


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_both_ends_agree_with_the_hypervisor(data: st.DataObject) -> None:
    check(World(lambda low, high: data.draw(st.integers(low, high))))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_also_when_cancelled_before_the_resume_is_known(data: st.DataObject) -> None:
    check(World(lambda low, high: data.draw(st.integers(low, high)), late_cancel=True))
