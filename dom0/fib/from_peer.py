"""What another host tells of a router's FIB, checked like what the router itself says. Pure.

The kernel gets only what our own code writes: no encapsulation, no program, no table but the router's, whatever a peer sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dom0.fib import address, marks, neighbour, nexthop, route, rule
from dom0.fib.message import (
    CREATE,
    DELADDR,
    DELNEIGH,
    DELNEXTHOP,
    DELROUTE,
    DELRULE,
    NEWADDR,
    NEWNEIGH,
    NEWNEXTHOP,
    NEWROUTE,
    NEWRULE,
    REPLACE,
    REQUEST,
    U32,
    MalformedError,
    Patched,
    RefusedMessageError,
)


def checked(data: bytes, besides: int) -> Patched:
    """One message of another host's snapshot or changes, written anew. ``besides``: index of the interface of which nothing is copied.

    Raises MalformedError for what no host of ours sends.
    """
    kind = U32.unpack_from(data, 4)[0] & 0xFFFF
    check = _CHECKS.get(kind)
    if check is None:
        raise MalformedError(f"a message of type {kind} in another host's table")
    try:
        return check(data, besides)
    except RefusedMessageError as error:
        raise MalformedError(f"{error}, in another host's table") from error


def generation_of(message: bytes) -> int | None:
    """Of a checked message that makes a route or a next hop."""
    at = _MARKED.get(message[4])
    return None if at is None else message[at] - marks.FIRST


def _route(data: bytes, _besides: int) -> Patched:
    found = route.Route(data)
    new = found.kind == NEWROUTE
    if not found.copied() or (found.protocol not in marks.MARKS and (new or found.protocol)):
        raise RefusedMessageError(f"a route of protocol {found.protocol}, table {found.table}")
    kind, flags = (NEWROUTE, REQUEST | CREATE | REPLACE) if new else (DELROUTE, REQUEST)
    return Patched(found.written(kind, flags, found.protocol), found.key(), new)


def _next_hop(data: bytes, _besides: int) -> Patched:
    made = nexthop.from_dump(data)
    if made is None:
        raise RefusedMessageError("a next hop that is not marked as a router's")
    return Patched(made[1], b"N" + nexthop.id_of(data), True)


def _no_next_hop(data: bytes, _besides: int) -> Patched:
    return nexthop.delete(nexthop.id_of(data))


def _address(data: bytes, besides: int) -> Patched:
    found = address.parse(data)
    _not_besides(found.index, besides)
    return address.patched(found, data[4] == NEWADDR)


def _rule(data: bytes, _besides: int) -> Patched:
    found = rule.parse(data)
    new = data[4] == NEWRULE
    return Patched(found.install if new else found.remove, found.key, new)


def _neighbour(data: bytes, besides: int) -> Patched:
    found = neighbour.parse(data)
    _not_besides(found.index, besides)
    made = neighbour.from_dump(data, besides)
    if made is None:
        raise RefusedMessageError("a neighbour without a link address")
    return Patched(made, found.key, True)


def _no_neighbour(data: bytes, besides: int) -> Patched:
    found = neighbour.parse(data)
    _not_besides(found.index, besides)
    return found.patched(False)


def _not_besides(index: int, besides: int) -> None:
    if besides and index == besides:
        raise RefusedMessageError("something of the management interface")


_MARKED: Mapping[int, int] = {NEWROUTE: route.PROTOCOL_AT, NEWNEXTHOP: nexthop.PROTOCOL_AT}
_CHECKS: Mapping[int, Callable[[bytes, int], Patched]] = {
    NEWROUTE: _route,
    DELROUTE: _route,
    NEWNEXTHOP: _next_hop,
    DELNEXTHOP: _no_next_hop,
    NEWADDR: _address,
    DELADDR: _address,
    NEWRULE: _rule,
    DELRULE: _rule,
    NEWNEIGH: _neighbour,
    DELNEIGH: _no_neighbour,
}
