"""What an agent in the router tells: links to report, addresses and rules to copy, routes if it was asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeVar

from dom0.fib import address, dump, link, rule
from dom0.fib.fib import Fib
from dom0.fib.link import VmLink
from dom0.fib.message import (
    DELADDR,
    DELLINK,
    DELNEXTHOP,
    DELROUTE,
    DELRULE,
    DONE,
    GETADDR,
    GETRULE,
    INET,
    INET6,
    NEWADDR,
    NEWLINK,
    NEWNEXTHOP,
    NEWROUTE,
    NEWRULE,
    NOOP,
    U32,
    MalformedError,
    Patched,
    RefusedMessageError,
)

_ROUTES = frozenset({NEWROUTE, DELROUTE, NEWNEXTHOP, DELNEXTHOP})
_TELLS_ROUTES = 1
_MOST = 4096
T = TypeVar("T")

Interfaces = frozenset[IPv4Interface | IPv6Interface]


class AgentState:
    """``complete``: a full state is in; ``tells_routes``: it brings the routes as well; ``refused`` counts what is not copied."""

    def __init__(
        self,
        fib: Fib,
        on_link: Callable[[VmLink], None],
        on_addresses: Callable[[Interfaces], None],
        on_complete: Callable[[], None],
    ) -> None:
        self.complete = False
        self.tells_routes = False
        self.refused = 0
        self.addresses: dict[bytes, address.Address] = {}
        self._fib = fib
        self._on_link = on_link
        self._on_addresses = on_addresses
        self._on_complete = on_complete
        self._rules: dict[bytes, rule.Rule] = {}

    def feed(self, messages: Sequence[bytes]) -> None:
        """In order; neighbouring routes go together. Raises MalformedError."""
        routes: list[bytes] = []
        before = set(self.addresses)
        for one in messages:
            if len(one) < 16:
                raise MalformedError(f"a message of {len(one)} bytes")
            kind = U32.unpack_from(one, 4)[0] & 0xFFFF
            if kind in _ROUTES:
                routes.append(one)
                continue
            self._routes(routes)
            try:
                self._one(kind, one)
            except RefusedMessageError:
                self.refused += 1
        self._routes(routes)
        if self.complete and self.addresses.keys() != before:
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
        elif kind in (NEWLINK, DELLINK):
            self._on_link(link.parse(data))
            self._fib.hurry()
        elif kind in (NEWADDR, DELADDR):
            self._address(address.parse(data), kind == NEWADDR)
        elif kind in (NEWRULE, DELRULE):
            self._rule(rule.parse(data), kind == NEWRULE)
        else:
            raise RefusedMessageError(f"message of type {kind}")

    def _begin(self, data: bytes) -> None:
        if len(data) < 20:
            raise MalformedError("a beginning without flags")
        self.complete = False
        self.tells_routes = bool(U32.unpack_from(data, 16)[0] & _TELLS_ROUTES)
        self.addresses.clear()
        self._rules.clear()
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

    def _rule(self, found: rule.Rule, new: bool) -> None:
        """Rules wait for the end of a full state: only then is it known which are there already."""
        if len(self._rules) >= _MOST:
            raise MalformedError(f"more than {_MOST} rules")
        if new:
            self._rules[found.key] = found
        else:
            self._rules.pop(found.key, None)
        if self.complete:
            self._copy_rules()

    def _end(self) -> None:
        """The state is whole: what else is there goes."""
        self._fib.change(self._stale_addresses())
        self._copy_rules()
        self.complete = True
        self._report()
        self._on_complete()

    def _stale_addresses(self) -> list[Patched]:
        found = []
        for piece in dump.pieces(self._fib.netns, GETADDR, 0):
            for one in piece:
                here = _tolerant(address.parse, one)
                if here and here.key not in self.addresses and here.index != self._fib.besides:
                    found.append(address.patched(here, False))
        return found

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
            for piece in dump.pieces(self._fib.netns, GETRULE, family):
                for one in piece:
                    if here := _tolerant(rule.parse, one):
                        yield here

    def _report(self) -> None:
        self._on_addresses(frozenset(one.interface for one in self.addresses.values()))

    def to_json(self) -> dict[str, object]:
        return {
            "complete": self.complete,
            "tells_routes": self.tells_routes,
            "addresses": [one.install.hex() for one in self.addresses.values()],
            "rules": [one.install.hex() for one in self._rules.values()],
        }

    def restore(
        self, complete: bool, tells_routes: bool, addresses: Sequence[bytes], rules: Sequence[bytes]
    ) -> None:
        """As another host's was. Raises MalformedError, RefusedMessageError."""
        parsed = [address.parse(one) for one in addresses[:_MOST]]
        self._rules = {one.key: one for one in map(rule.parse, rules[:_MOST])}
        self.addresses = {one.key: one for one in parsed}
        self.complete, self.tells_routes = complete, tells_routes
        if complete:
            self._report()


def _tolerant(parse: Callable[[bytes], T], data: bytes) -> T | None:
    """What the kernel itself says: of a kind that is not copied, it is left alone."""
    try:
        return parse(data)
    except RefusedMessageError:
        return None
