"""The table of one router, in the kernel of the namespace that forwards for it.

The kernel's table is the only record of routes: each says by its mark of which generation it is. A generation begins with the first
message of a connection; what is older stays until it is replaced, or swept when the new table is whole.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dom0.fib import address, from_peer, marks, neighbour, nexthop, route, snapshot, sweep
from dom0.fib.kernel import Failure, Kernel
from dom0.fib.message import (
    ACK,
    DELADDR,
    DELNEIGH,
    DELNEXTHOP,
    DELROUTE,
    DELRULE,
    NEWADDR,
    NEWNEIGH,
    NEWNEXTHOP,
    NEWROUTE,
    U16,
    U32,
    MalformedError,
    Patched,
    RefusedMessageError,
    TooManyError,
    split,
)
from dom0.fib.templates import Batch, Templates
from dom0.fib.waiting import Waiting, may_pass
from vmnet.limited_log import LimitedLog

_LOG = logging.getLogger(__name__)
MOST_ROUTES = 2_000_000
_COUNTED_EVERY = 20  # a twentieth of the most, that is: a count takes a second or two
_TRY_S, _IDLE_S = 0.05, 0.25
_DELETIONS = (DELROUTE, DELNEXTHOP, DELADDR, DELRULE, DELNEIGH)
_GONE = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class FibCounts:
    """Since the object was made. ``refused``: messages that are not copied; ``errors``: that the kernel would not have; ``waiting``:
    those of them that are tried again; ``generation``: None before anything came."""

    installed: int
    deleted: int
    errors: int
    refused: int
    waiting: int
    lost: int
    swept: int
    generation: int | None


class Fib:
    """``on_change`` gets what the kernel took, in order.

    Methods (of iterators, each step) take a millisecond or two, but as long as the kernel does when it enlarges its tables: 60 ms at a
    hundred thousand routes, 0.8 s at a million. So ``Sessions`` calls them in a thread. One thread at a time may feed or sweep;
    ``install``, ``snapshot`` and ``counts`` may be called from another meanwhile.
    """

    def __init__(
        self,
        netns: str,
        log_name: str,
        clock: Callable[[], float] = time.monotonic,
        most_routes: int = MOST_ROUTES,
    ) -> None:
        """``netns``: path or name. OSError if there is none. Reads the table that is there: 0.3 s for a million routes.

        ``most_routes``: routes and next hops that it may have, give or take a twentieth.
        """
        self.netns = netns
        self._most_routes = most_routes
        self._uncounted = self._room = 0
        """How many were installed since the kernel was asked how many it has, and after how many it is asked again."""
        self.on_change: Callable[[bytes], None] = lambda _changed: None
        self.besides = 0
        self.generation: int | None = None
        self._clock = clock
        self._kernel = Kernel(netns)
        self._lock = threading.Lock()
        self._held = sweep.held(netns)
        self._templates: Templates | None = None
        self._from_peer = Templates(lambda data: from_peer.checked(data, self.besides))
        self._deletion: tuple[bytes, bytes] | None = None
        self._held_since = 0.0
        self._waiting = Waiting()
        self._log = LimitedLog(_LOG, log_name)
        self._installed = self._deleted = self._errors = self._refused = self._swept = 0

    @property
    def replaces(self) -> bool:
        """Whether a sweep would take something away that an earlier generation left."""
        return bool(self._held - {self.generation})

    @property
    def lost(self) -> int:
        """Messages that the kernel would not have and there was no room to keep: only a new session brings them back."""
        return self._waiting.lost

    def begin(self) -> int:
        """A new generation, which confirms what it names; the rest stays until swept."""
        self._release_deletion()
        chosen = marks.following(-1 if self.generation is None else self.generation, self._held)
        if chosen is None:
            chosen = self._make_room()
        self.resume(chosen)
        return chosen

    def _make_room(self) -> int:
        """Sixteen connections in a row ended before their table was whole: the oldest generation goes."""
        oldest = ((self.generation or 0) + 1) % marks.COUNT
        self._log.warn(self._clock(), "no session stays: routes not confirmed by the last 15 are taken away")
        for _ in self._swept_of(frozenset({oldest})):
            pass
        return oldest

    def resume(self, generation: int) -> None:
        """Go on in a generation: that of a session taken over from another host. ValueError if there is no such number."""
        if generation not in range(marks.COUNT):
            raise ValueError(f"no generation {generation}")
        self.generation = generation
        self._held.add(generation)
        self._waiting.clear()
        self._templates = Templates(lambda data: _patched(data, generation))

    def feed(self, messages: Sequence[bytes]) -> list[bytes]:
        """Routes and next hops from the router, in order; what they are about. Raises MalformedError (what was good before it is in),
        TooManyError."""
        if self._templates is None:
            self.begin()
        assert self._templates is not None
        batch = Batch()
        if self._deletion:
            batch.add(*self._deletion, False)
            self._deletion = None
        before = self._templates.refused
        try:
            self._templates.feed(messages, batch)
        finally:
            self._count_refused(self._templates.refused - before)
            self._hold_last_deletion(batch)
            self._apply(batch.messages, batch.keys)
        self._check_number()
        return batch.keys

    def _check_number(self) -> None:
        """Each costs the host a kibibyte of kernel memory. TooManyError if there are too many without earlier generations' too.

        The kernel does not say whether a message replaced a route, so now and then it is asked how many it has.
        """
        if self._uncounted < self._room:
            return
        number = sweep.count(self.netns)
        if number > self._most_routes and self.generation is not None:
            for _ in self.sweep():
                pass
            number = sweep.count(self.netns)
        self._uncounted = 0
        self._room = max(self._most_routes - number, self._most_routes // _COUNTED_EVERY)
        if number > self._most_routes:
            self._uncounted = self._room
            raise TooManyError(f"more than {self._most_routes} routes and next hops")

    def _count_refused(self, count: int) -> None:
        if count and self._templates:
            self._refused += count
            self._log.warn(self._clock(), f"not copied: {self._templates.last_refusal}", count)

    def _hold_last_deletion(self, batch: Batch) -> None:
        """A deletion at the end of what was read may be the first half of a replacement."""
        if (
            batch.messages
            and batch.deletions.get(batch.keys[-1]) == len(batch.messages) - 1
            and batch.keys[-1][:1] == b"R"
        ):
            self._deletion = batch.messages.pop(), batch.keys.pop()
            self._held_since = self._clock()

    def tend(self, hold_s: float) -> float:
        """Do what has come due: a deletion that waited ``hold_s`` for its replacement, a few messages to try again.

        When to be called again, in seconds from now.
        """
        now = self._clock()
        if self._deletion and now - self._held_since >= hold_s:
            self._release_deletion()
        due = self._waiting.due(now)
        if due:
            self._apply([message for _, message in due], [key for key, _ in due], again=True)
        if self._deletion:
            return hold_s
        return _TRY_S if self._waiting else _IDLE_S

    @property
    def holds(self) -> bool:
        """A deletion is waiting: ``tend`` soon."""
        return self._deletion is not None

    def _release_deletion(self) -> None:
        if self._deletion:
            (message, key), self._deletion = self._deletion, None
            self._apply([message], [key])

    def hurry(self) -> None:
        """An interface or an address has changed: what waits may go in now."""
        self._waiting.hurry(self._clock())

    def change(self, patched: Sequence[Patched]) -> None:
        """Addresses, rules and permanent neighbours."""
        self._apply([one.message for one in patched], [one.key for one in patched])
        self.hurry()

    def _apply(self, messages: list[bytes], keys: Sequence[bytes], again: bool = False) -> None:
        with self._lock:
            self._apply_locked(messages, keys, again)

    def _apply_locked(self, messages: list[bytes], keys: Sequence[bytes], again: bool) -> None:
        if self._waiting and not again:
            for key in keys:
                self._waiting.forget(key)
        failures = self._kernel.send(messages)
        if failures:
            messages = self._without(messages, keys, failures, again)
        deleted = sum(1 for one in messages if one and one[4] in _DELETIONS)
        self._deleted += deleted
        installed = sum(1 for one in messages if one) - deleted
        self._installed += installed
        self._uncounted += installed
        changed = b"".join(messages)
        if changed:
            self.on_change(changed)

    def _without(
        self, messages: list[bytes], keys: Sequence[bytes], failures: Sequence[Failure], again: bool
    ) -> list[bytes]:
        """What the kernel did take. What may go in later is kept, unless something newer was said of it in the same breath."""
        latest = {key: _essence(one) for key, one in zip(keys, messages, strict=False) if one}
        for one in failures:
            self._judge(one, latest, again)
        bad = {_essence(one.request) for one in failures}
        return [one for one in messages if one and _essence(one) not in bad]

    def _judge(self, failure: Failure, latest: Mapping[bytes, bytes], again: bool) -> None:
        request = failure.request
        kind = request[4]
        if (kind in _DELETIONS and failure.errno in _GONE) or failure.errno == errno.EEXIST:
            return
        now = self._clock()
        if not again:
            self._errors += 1
            self._log.warn(now, str(failure))
        if kind in (NEWROUTE, NEWNEXTHOP, NEWADDR, NEWNEIGH) and may_pass(failure.errno):
            key = _key_of(request)
            if latest.get(key, _essence(request)) == _essence(request):
                self._waiting.add(key, _unacknowledged(request), now)

    def sweep(self) -> Iterator[None]:
        """Takes away what the present generation has not confirmed: routes, then next hops. A step is a millisecond or two."""
        self._release_deletion()
        stale = frozenset(self._held - {self.generation})
        generation = self.generation
        if not stale:
            return
        yield from self._swept_of(stale)
        if self.generation == generation:
            self._held -= stale

    def _swept_of(self, stale: frozenset[int]) -> Iterator[None]:
        for source in (sweep.routes(self.netns, stale), sweep.next_hops(self.netns, stale)):
            for deletions in source:
                self._swept += len(deletions)
                self._apply(deletions, ())
                yield

    def install(self, messages: bytes) -> None:
        """What another host's ``snapshot`` or ``on_change`` gave. Raises MalformedError if it is none of these, TooManyError."""
        batch = Batch()
        try:
            self._from_peer.feed(list(split(messages)), batch)
        finally:
            self._held.update(
                generation
                for one in batch.messages
                if one and (generation := from_peer.generation_of(one)) is not None
            )
            self._apply(batch.messages, batch.keys)
        self._check_number()

    def snapshot(self) -> Iterator[bytes]:
        """Chunks of at most 60 KiB for ``install`` elsewhere. All changes since its beginning after it give the right result."""
        return snapshot.chunks(self.netns, self.besides)

    def counts(self) -> FibCounts:
        return FibCounts(
            self._installed,
            self._deleted,
            self._errors,
            self._refused,
            len(self._waiting),
            self._waiting.lost,
            self._swept,
            self.generation,
        )

    def close(self) -> None:
        """The routes stay."""
        self._release_deletion()
        self._kernel.close()


def _patched(data: bytes, generation: int) -> Patched | None:
    """Raises MalformedError, RefusedMessageError."""
    kind = U32.unpack_from(data, 4)[0] & 0xFFFF
    if kind in (NEWROUTE, DELROUTE):
        return route.from_router(data, generation)
    if kind in (NEWNEXTHOP, DELNEXTHOP):
        return nexthop.from_router(data, generation)
    raise RefusedMessageError(f"message of type {kind}")


def _essence(message: bytes) -> bytes:
    """A message without what differs between what was sent and what an error shows of it: flags, sequence number."""
    return message[4:6] + message[16:]


def _unacknowledged(request: bytes) -> bytes:
    """As it was before it was sent, perhaps as the last of a chunk."""
    (flags,) = U16.unpack_from(request, 6)
    return request[:6] + U16.pack(flags & ~ACK) + bytes(8) + request[16:]


def _key_of(message: bytes) -> bytes:
    """Of a message that was patched already. Raises MalformedError."""
    try:
        if message[4] in (NEWROUTE, DELROUTE):
            return route.Route(message).key()
        if message[4] in (NEWADDR, DELADDR):
            return address.parse(message).key
        if message[4] in (NEWNEIGH, DELNEIGH):
            return neighbour.parse(message).key
        if message[4] in (NEWNEXTHOP, DELNEXTHOP):
            return b"N" + nexthop.id_of(message)
    except RefusedMessageError as error:
        raise MalformedError(str(error)) from error
    return _essence(message)
