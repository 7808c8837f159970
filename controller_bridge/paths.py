"""From one path to another without a packet lost: what to change on which switch, and when (Pisa 2010, figure 3). Pure.

The new path is made on every switch but the one where the two part (the fork); then the fork's entry is modified, and all packets
take the new path; the old path goes when it is empty. Where both paths cross a switch on different links, the new one's entries
there say by which port they mean, a priority higher, until the old one has gone. Where they run together again and part again
there are several forks; the last one is cut first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from controller_bridge.openflow import action
from controller_bridge.openflow.flow import SAME_OWNER, Change, Command, Flow
from controller_bridge.openflow.match import Field
from vmnet.errors import RefusedError


class Hop(NamedTuple):
    """A switch on a path, and the ports by which packets come and go."""

    switch: str
    in_port: int
    out_port: int


Path = tuple[Hop, ...]


Changes = dict[str, list[Change]]
"""By switch."""


@dataclass
class Plan:
    """In this order. ``undo_cuts`` and ``undo_prepare`` put back what has been done, in that order."""

    prepare: Changes = field(default_factory=dict)
    cuts: list[Changes] = field(default_factory=list)
    """One after the other; what is in one of them may be done in any order."""
    finish: Changes = field(default_factory=dict)
    undo_cuts: list[Changes] = field(default_factory=list)
    undo_prepare: Changes = field(default_factory=dict)
    leaving: dict[str, list[Flow]] = field(default_factory=dict)
    """Entries that carry nothing any more once the old path is empty."""


def plan(entries: Mapping[str, Sequence[Flow]], old: Path, new: Path) -> Plan:
    """``entries``: of the flows that move, as they are on each switch of ``old``.

    RefusedError if the paths do not begin at one place, cross a switch twice, or an entry does not send where ``old`` says.
    """
    _check(entries, old, new)
    made = Plan()
    before = {hop.switch: hop for hop in old}
    after = {hop.switch: hop for hop in new}
    model = entries[old[0].switch]
    for hop in new:
        known = before.get(hop.switch)
        if known is None:
            _add(made, hop.switch, [_forwarding(one, hop) for one in model])
        elif known.in_port != hop.in_port:
            _crossing(made, entries[hop.switch], known, hop)
        elif known.out_port != hop.out_port:
            _fork(made, entries[hop.switch], known, hop)
    made.cuts.reverse()
    for hop in old:
        if hop.switch not in after:
            _remove(made, hop.switch, entries[hop.switch])
    return made


def together(plans: Iterable[Plan]) -> Plan:
    """One plan for flows that share no entry: each keeps its own order, and all of a step is told at once."""
    made = Plan()
    for one in plans:
        for all_of, some in (
            (made.prepare, one.prepare),
            (made.finish, one.finish),
            (made.undo_prepare, one.undo_prepare),
        ):
            _join(all_of, some)
        for switch, leaving in one.leaving.items():
            made.leaving.setdefault(switch, []).extend(leaving)
        for every, own in ((made.cuts, one.cuts), (made.undo_cuts, one.undo_cuts)):
            every.extend({} for _ in own[len(every) :])
            for step, cut in zip(every, own, strict=False):
                _join(step, cut)
    return made


def _join(into: Changes, some: Changes) -> None:
    for switch, changes in some.items():
        into.setdefault(switch, []).extend(changes)


def _check(entries: Mapping[str, Sequence[Flow]], old: Path, new: Path) -> None:
    if not old or not new or old[0][:2] != new[0][:2]:
        raise RefusedError("the two paths do not begin at the same port of the same switch")
    for path in (old, new):
        if len({hop.switch for hop in path}) != len(path):
            raise RefusedError("a path crosses a switch twice")
    for hop in old:
        for one in entries.get(hop.switch, ()):
            if hop.out_port not in action.outputs(one.instructions):
                raise RefusedError(
                    f"an entry on {hop.switch} does not send to port {hop.out_port}, as its path says",
                    "its flows have changed: look at them again",
                )
        if not entries.get(hop.switch):
            raise RefusedError(f"{hop.switch} has none of the flows that are to move")


def _add(made: Plan, switch: str, flows: Sequence[Flow]) -> None:
    made.prepare.setdefault(switch, []).extend(Change(Command.ADD, one) for one in flows)
    made.undo_prepare.setdefault(switch, []).extend(_deleted(flows))


def _remove(made: Plan, switch: str, flows: Sequence[Flow]) -> None:
    made.finish.setdefault(switch, []).extend(_deleted(flows))
    made.leaving.setdefault(switch, []).extend(flows)


def _deleted(flows: Sequence[Flow]) -> Iterator[Change]:
    return (Change(Command.DELETE_STRICT, one, SAME_OWNER) for one in flows)


def _forwarding(model: Flow, hop: Hop) -> Flow:
    """As ``model``, through ``hop``. An entry that says by which port it means says so here."""
    match = model.match if model.match.get(Field.IN_PORT) is None else model.match.at_port(hop.in_port)
    return model._replace(match=match, instructions=action.apply([action.output(hop.out_port)]))


def _fork(made: Plan, entries: Sequence[Flow], known: Hop, hop: Hop) -> None:
    cut = [_to_port(one, known.out_port, hop.out_port) for one in entries]
    made.cuts.append({hop.switch: [Change(Command.MODIFY_STRICT, one, SAME_OWNER) for one in cut]})
    made.undo_cuts.append({hop.switch: [Change(Command.MODIFY_STRICT, one, SAME_OWNER) for one in entries]})


def _to_port(one: Flow, old: int, new: int) -> Flow:
    return one._replace(instructions=action.redirected(one.instructions, old, new))


def _crossing(made: Plan, entries: Sequence[Flow], known: Hop, hop: Hop) -> None:
    """Both paths cross this switch, and come by different ports."""
    ported = [one for one in entries if one.match.get(Field.IN_PORT) is not None]
    plain = [one for one in entries if one.match.get(Field.IN_PORT) is None]
    if ported:
        moved = [_to_port(one, known.out_port, hop.out_port) for one in ported]
        _add(made, hop.switch, [one._replace(match=one.match.at_port(hop.in_port)) for one in moved])
        _remove(made, hop.switch, ported)
    if plain and known.out_port != hop.out_port:
        guarded = [_guarded(one, known, hop) for one in plain]
        _add(made, hop.switch, guarded)
        final = [_to_port(one, known.out_port, hop.out_port) for one in plain]
        made.finish.setdefault(hop.switch, []).extend(
            [*(Change(Command.MODIFY_STRICT, one, SAME_OWNER) for one in final), *_deleted(guarded)]
        )
        made.leaving.setdefault(hop.switch, []).extend(plain)


def _guarded(one: Flow, known: Hop, hop: Hop) -> Flow:
    if one.priority == 0xFFFF:
        raise RefusedError(
            f"an entry on {hop.switch} has the highest priority there is: none can come before it"
        )
    moved = _to_port(one, known.out_port, hop.out_port)
    return moved._replace(priority=one.priority + 1, match=one.match.at_port(hop.in_port))
