"""What the other side of a migration says about it, and what follows."""

from __future__ import annotations

from typing import Any

from dom0.bound import agreed_binding, bound
from dom0.claim import field, reason_field
from dom0.destination import DestinationMigration
from dom0.flow_setup import of_message
from dom0.source import SourceMigration
from vmnet.errors import PeerError, RefusedError
from vmnet.machine import Event, State

_SETTLE_S = 5.0
_EXPECTS = (State.EXPECTING, State.RESUMED, State.PAUSED, State.OPEN, State.DONE)


def _counts(raw: object) -> list[int]:
    """Frames by interface, in the agreement's order; whatever a peer sends, none is negative."""
    numbers = raw if isinstance(raw, list) else []
    return [one if type(one) is int and one > 0 else 0 for one in numbers]


async def to_destination(one: DestinationMigration, op: str, message: dict[str, Any]) -> dict[str, Any]:
    if op == "expect":
        one.announcements.note(message)
        one.note_senders(of_message(message))
        await one.settled((State.READY, *_EXPECTS), _SETTLE_S)
        one.post(Event.EXPECT)
        state = await one.settled(_EXPECTS, _SETTLE_S)
        if state is State.ROLLED_BACK:
            raise RefusedError(f"{one.context.host} is not ready: {one.error}")
        return {"last": one.holds_own}
    if op == "connections":
        return await one.connections.take(message, one.runs)
    if op == "fib":
        await one.fib(message)
        return {}
    if op == "links":
        if one.arriving is not None:
            one.arriving.note_links(message)
        one.post(Event.LINKS)
        return {}
    if op == "links-back":
        if one.arriving is not None:
            await one.arriving.go_back()
        return {}
    if op == "back":
        return {"frames": await one.go_back()}
    if op == "cancel":
        one.post(Event.CANCEL, RefusedError(reason_field(message)))
        return {}
    if op == "finish":
        unreceived = await one.unreceived(_counts(message.get("sent")))
        await one.own_let_go()
        counts = one.counts()
        one.settle_definition(message.get("autostart") is True)
        one.post(Event.FINISH)
        return {**counts, "unreceived": unreceived}
    raise PeerError(f"unknown request {op!r}")


async def _check_has_left(one: SourceMigration) -> None:
    """PeerError if the hypervisor here says that the VM runs here."""
    if await one.is_denied():
        raise PeerError(f"VM {one.record.name!r} runs on {one.context.host}")


async def to_source(one: SourceMigration, op: str, message: dict[str, Any]) -> dict[str, Any]:
    if op == "resumed":
        resume_ns = field(message, "resume_ns", int) - one.clock_offset_ns
        await _check_has_left(one)
        one.note_resumed(resume_ns)
        return {}
    if op == "paused":
        await _check_has_left(one)
        one.paused_there = True
        one.post(Event.PEER_PAUSED)
        return {}
    if op == "clone":
        if one.leaving is not None:
            one.leaving.wanted.set()
        return {}
    if op == "bound":
        record = one.record
        if one.agreed is None:
            raise PeerError(f"nothing is agreed about VM {record.name!r}")
        agreed = agreed_binding(one.agreed, record.vm, record.name, record.destination)
        await one.context.store.binding_learn(bound(message, agreed))
        return {}
    if op == "open":
        counts = message.get("counts")
        one.opened = counts if isinstance(counts, dict) else {}
        one.tell("marker", ordered=one.opened.get("ordered"))
        one.post(Event.PEER_OPEN)
        return {}
    if op == "failed":
        one.failed_there = True
        one.post(
            Event.FAILED,
            RefusedError(f"at {one.record.destination}: {reason_field(message)}"),
        )
        return {}
    raise PeerError(f"unknown request {op!r}")
