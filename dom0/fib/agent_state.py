"""What an agent in the router tells: addresses, rules, permanent neighbours and routes (if it was asked for them) to copy.

Links, and what else the router's kernel does to packets, are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeVar

from dom0.fib import address, dump, neighbour, rule, vm_kernel
from dom0.fib.fib import Fib
from dom0.fib.link import VmLink
from dom0.fib.message import (
    DELADDR,
    DELNEIGH,
    DELNEXTHOP,
    DELROUTE,
    DELRULE,
    DONE,
    GETADDR,
    GETNEIGH,
    GETRULE,
    INET,
    INET6,
    NEWADDR,
    NEWNEIGH,
    NEWNEXTHOP,
    NEWROUTE,
    NEWRULE,
    NOOP,
    U32,
    MalformedError,
    Patched,
    RefusedMessageError,
)
from dom0.fib.neighbour import PermanentNeighbour
from dom0.fib.vm_kernel import VmKernel, VmKernelState

_ROUTES = frozenset({NEWROUTE, DELROUTE, NEWNEXTHOP, DELNEXTHOP})
_TELLS_ROUTES, _TELLS_BESIDE = 1, 2
_MOST = MOST_FILTERS = 4096
LISTS = {"addresses": _MOST, "rules": _MOST, "refused_rules": _MOST, "neighbours": _MOST, "kernel": 4 * _MOST}
"""What a state consists of, and how many messages of each there are at most."""
T = TypeVar("T")

Interfaces = frozenset[IPv4Interface | IPv6Interface]


@dataclass(frozen=True)
class AgentReport:
    """What decides whether the router's kernel may be stood for. ``refused_rules``: how many rules it has that cannot be copied."""

    kernel: VmKernel
    addresses: tuple[address.Address, ...] = ()
    rules: tuple[rule.Rule, ...] = ()
    refused_rules: int = 0


class AgentState:
    """``complete``: a full state is in; ``tells_routes``: it brings the routes as well; ``refused`` counts what is not copied.

    ``on_report``: called when what is reported has changed, and before ``on_addresses`` and ``on_complete``.
    """

    def __init__(
        self,
        fib: Fib,
        on_link: Callable[[VmLink], None],
        on_addresses: Callable[[Interfaces], None],
        on_complete: Callable[[], None],
        on_report: Callable[[AgentReport], None] = lambda _report: None,
    ) -> None:
        self.complete = False
        self.tells_routes = False
        self.refused = 0
        self.addresses: dict[bytes, address.Address] = {}
        self._fib = fib
        self._on_link = on_link
        self._on_addresses = on_addresses
        self._on_complete = on_complete
        self._on_report = on_report
        self._rules: dict[bytes, rule.Rule] = {}
        self._refused_rules: set[bytes] = set()
        self._neighbours: dict[bytes, PermanentNeighbour] = {}
        self._kernel = VmKernelState()
        self._reported: AgentReport | None = None

    def feed(self, messages: Sequence[bytes]) -> None:
        """In order; neighbouring routes go together. Raises MalformedError."""
        routes: list[bytes] = []
        before = set(self.addresses)
        beside_routes = False
        for one in messages:
            kind = vm_kernel.kind_of(one)
            if kind in _ROUTES:
                routes.append(one)
                continue
            beside_routes = True
            self._routes(routes)
            try:
                self._one(kind, one)
            except RefusedMessageError:
                self.refused += 1
        self._routes(routes)
        if self.complete and beside_routes:
            self._report_changes()
            if self.addresses.keys() != before:
                self._report()

    def _routes(self, routes: list[bytes]) -> None:
        if routes and not self.tells_routes:
            raise MalformedError("routes from an agent that said it tells of none")
        if routes:
            self._fib.feed(routes)
            routes.clear()

    def _one(self, kind: int, data: bytes) -> None:
        if kind == NOOP:
            self._begin(data)
        elif kind == DONE:
            self._end()
        elif kind in vm_kernel.KINDS:
            if (told := self._kernel.feed(kind, data)) is not None:
                self._on_link(told)
                self._fib.hurry()
        elif kind in (NEWADDR, DELADDR):
            self._address(address.parse(data), kind == NEWADDR)
        elif kind in (NEWRULE, DELRULE):
            self._rule(data, kind == NEWRULE)
        elif kind in (NEWNEIGH, DELNEIGH):
            self._neighbour(neighbour.parse(data), kind == NEWNEIGH)
        else:
            raise RefusedMessageError(f"message of type {kind}")

    def _begin(self, data: bytes) -> None:
        if len(data) < 20:
            raise MalformedError("a beginning without flags")
        self.complete = False
        (flags,) = U32.unpack_from(data, 16)
        self.tells_routes = bool(flags & _TELLS_ROUTES)
        self._kernel.begin(bool(flags & _TELLS_BESIDE))
        self.addresses.clear()
        self._rules.clear()
        self._refused_rules.clear()
        self._neighbours.clear()
        if self.tells_routes:
            self._fib.begin()

    def _address(self, found: address.Address, new: bool) -> None:
        if len(self.addresses) >= _MOST and new:
            raise MalformedError(f"more than {_MOST} addresses")
        if new:
            self.addresses[found.key] = found
        else:
            self.addresses.pop(found.key, None)
        if found.index != self._fib.besides:
            self._fib.change([address.patched(found, new)])

    def _rule(self, data: bytes, new: bool) -> None:
        """Rules wait for the end of a full state: only then is it known which are there already."""
        if len(self._rules) + len(self._refused_rules) >= _MOST:
            raise MalformedError(f"more than {_MOST} rules")
        try:
            found = rule.parse(data)
        except RefusedMessageError:
            (self._refused_rules.add if new else self._refused_rules.discard)(data[16:])
            raise
        if new:
            self._rules[found.key] = found
        else:
            self._rules.pop(found.key, None)
        if self.complete:
            self._copy_rules()

    def _neighbour(self, found: PermanentNeighbour, new: bool) -> None:
        """One that its kernel finds out itself is found out here as well. A permanent one might never answer."""
        if len(self._neighbours) >= _MOST:
            raise MalformedError(f"more than {_MOST} permanent neighbours")
        if found.index == self._fib.besides:
            return
        if new and found.permanent:
            self._neighbours[found.key] = found
            self._fib.change([found.patched(True)])
        elif (gone := self._neighbours.pop(found.key, None)) is not None:
            self._fib.change([gone.patched(False)])

    def _end(self) -> None:
        """The state is whole: what else is there goes."""
        self._fib.change([*self._stale_addresses(), *self._stale_neighbours()])
        self._copy_rules()
        self.complete = True
        self._report_changes()
        self._report()
        self._on_complete()

    def _stale_addresses(self) -> list[Patched]:
        return [
            address.patched(here, False)
            for here in self._here(GETADDR, 0, address.parse)
            if here.key not in self.addresses and here.index != self._fib.besides
        ]

    def _stale_neighbours(self) -> list[Patched]:
        """Permanent ones that the namespace has and the router has no more."""
        return [
            here.patched(False)
            for here in self._here(GETNEIGH, 0, neighbour.parse)
            if here.permanent and here.key not in self._neighbours and here.index != self._fib.besides
        ]

    def _here(self, kind: int, family: int, parse: Callable[[bytes], T]) -> Iterator[T]:
        """What the namespace has. What is of a kind that is not copied is left alone."""
        for piece in dump.pieces(self._fib.netns, kind, family):
            for message in piece:
                try:
                    here = parse(message)
                except RefusedMessageError:
                    continue
                yield here

    def _copy_rules(self) -> None:
        """The difference between the router's rules and the namespace's: what is missing is made first."""
        here = {one.key: one for one in self._rules_here()}
        added = [Patched(one.install, key, True) for key, one in self._rules.items() if key not in here]
        gone = [
            Patched(one.remove, key, False)
            for key, one in here.items()
            if one.ours and key not in self._rules
        ]
        self._fib.change([*added, *gone])

    def _rules_here(self) -> Iterator[rule.Rule]:
        for family in (INET, INET6):
            yield from self._here(GETRULE, family, rule.parse)

    def _report(self) -> None:
        self._on_addresses(frozenset(one.interface for one in self.addresses.values()))

    def _report_changes(self) -> None:
        report = AgentReport(
            self._kernel.view,
            tuple(self.addresses.values()),
            tuple(self._rules.values()),
            len(self._refused_rules),
        )
        if report != self._reported:
            self._reported = report
            self._on_report(report)

    def to_json(self) -> dict[str, object]:
        return {
            "complete": self.complete,
            "tells_routes": self.tells_routes,
            "tells_beside": self._kernel.told,
            "filters": list(self._kernel.filters),
            **{name: [one.hex() for one in messages] for name, messages in self._messages().items()},
        }

    def _messages(self) -> dict[str, list[bytes]]:
        return {
            "addresses": [one.install for one in self.addresses.values()],
            "rules": [one.install for one in self._rules.values()],
            "refused_rules": sorted(self._refused_rules),
            "neighbours": [one.install for one in self._neighbours.values()],
            "kernel": self._kernel.messages(),
        }

    def restore(
        self,
        complete: bool,
        tells_routes: bool,
        tells_beside: bool,
        messages: Mapping[str, Sequence[bytes]],
        filters: Sequence[str],
    ) -> None:
        """As another host's was; ``messages``: by the names of ``LISTS``. Raises MalformedError, RefusedMessageError."""
        self._kernel.restore(tells_beside, messages["kernel"], filters)
        self._rules = {one.key: one for one in map(rule.parse, messages["rules"])}
        self._refused_rules = set(messages["refused_rules"])
        self._neighbours = {one.key: one for one in map(neighbour.parse, messages["neighbours"])}
        self.addresses = {one.key: one for one in map(address.parse, messages["addresses"])}
        self.complete, self.tells_routes = complete, tells_routes
        if complete:
            for told in self._kernel.view.links:
                self._on_link(told)
            self._report_changes()
            self._report()
