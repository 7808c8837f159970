"""Keepalives that are answered for while a router VM stands still: what it said last is said again, at its own pace. Pure.

While the VM runs, :class:`KeepaliveBook` remembers each session's last keepalive. From ``stop`` to ``resume`` it gives them out again
when they are due, for ``limit_s`` at most: a router that really died has to be missed. Between the two the book takes in nothing, so
that one thread may ask for what is due while another still reads from the tap. Times are seconds of any one monotonic clock.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from random import Random

from dom0.router import bfd, hello
from dom0.router.session import Heard, Keepalive, Key, Unanswerable, Why

REPEATABLE: tuple[Callable[[bytes], Keepalive | Unanswerable | None], ...] = (
    bfd.parse,
    hello.vrrp,
    hello.ospf,
)
"""What can be sent again, a reader a protocol."""

LIMIT_S = 10.0
MOST_SESSIONS = 256
LEAST_INTERVAL_S = 0.01
"""A VM may ask for any pace; this and the next are what a host gives for it."""
MOST_FRAMES_PER_S = 2000.0
_SILENT_PATIENCES = 2
"""Of a session on which the VM itself has not spoken for so many detection times, the neighbour knows better."""


@dataclass(frozen=True)
class Entry:
    """A session's last keepalive, when the VM sent it, and the least interval its neighbour wants (0 s: never said)."""

    keepalive: Keepalive
    seen_at: float
    required_s: float = 0.0

    @property
    def interval_s(self) -> float:
        """RFC 5880, 6.8.7: the greater of what one wants to send and the other to receive."""
        return max(self.keepalive.interval_s, self.required_s, LEAST_INTERVAL_S)

    def fresh(self, now: float) -> bool:
        return now - self.seen_at <= _SILENT_PATIENCES * self.keepalive.patience * self.interval_s


def understand(frame: bytes, mac: bytes) -> Keepalive | Unanswerable | None:
    """A keepalive that the VM with ``mac`` sent, whatever it is of; None for any other frame."""
    for reader in REPEATABLE:
        found = reader(frame)
        if found is not None:
            return found if frame[6:12] in (mac, hello.virtual_mac(found.key)) else None
    return None


class KeepaliveBook:
    """Of one interface of a VM, with its MAC address. ``random`` gives the jitter."""

    def __init__(self, mac: bytes, limit_s: float = LIMIT_S, random: Random | None = None) -> None:
        self.mac = mac
        self.limit_s = limit_s
        self.refused: Counter[str] = Counter()
        """Keepalives not to be repeated, by reason."""
        self.sent: Counter[str] = Counter()
        """Frames given out, by session, since the last ``stop``."""
        self.spoken: dict[Key, None] = {}
        """Sessions on which the VM has said anything, whatever: no more than are remembered, the newest."""
        self._random = random or Random()
        self._entries: dict[Key, Entry] = {}
        self._stopped_at: float | None = None
        self._turns: list[tuple[float, int, Entry]] = []

    @property
    def stopped_at(self) -> float | None:
        return self._stopped_at

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[Entry]:
        """All that is remembered, the oldest first."""
        return list(self._entries.values())

    def silence_s(self, key: Key, now: float) -> float | None:
        """How long the VM has said nothing on a session: infinite if never; None if what it said last must not be said again."""
        if key not in self.spoken:
            return inf
        entry = self._entries.get(key)
        return None if entry is None else now - entry.seen_at

    def seen(self, frame: bytes, now: float) -> None:
        """``frame`` came from the VM at ``now``."""
        found = None if self._stopped_at is not None else understand(frame, self.mac)
        if found is not None:
            self.spoken[found.key] = None
            if len(self.spoken) > MOST_SESSIONS:
                del self.spoken[next(iter(self.spoken))]
        if isinstance(found, Unanswerable):
            self.refused[found.why.value] += 1
            # what is malformed the neighbour ignores, too, and the session stays what it was
            if found.why is not Why.MALFORMED:
                self._entries.pop(found.key, None)
        elif found is not None:
            self.remember(Entry(found, now))

    def remember(self, entry: Entry) -> None:
        """The newest of its session; of too many sessions, the one not heard of for longest is forgotten."""
        old = self._entries.pop(entry.keepalive.key, None)
        self._entries[entry.keepalive.key] = _follow(old, entry) if old else entry
        if len(self._entries) > MOST_SESSIONS:
            del self._entries[next(iter(self._entries))]

    def heard(self, frame: bytes, now: float) -> None:
        """``frame`` went to the VM at ``now``: a neighbour may say how often it wants to hear from it."""
        found = None if self._stopped_at is not None else bfd.parse_heard(frame)
        entry = self._entries.get(found.key) if found else None
        if found is None or entry is None or found.number != entry.keepalive.number:
            return
        if _wanted(found):
            self._entries[found.key] = replace(entry, required_s=found.interval_s)
        else:
            del self._entries[found.key]

    def stop(self, now: float) -> None:
        """The VM stands still from ``now`` on. Again: nothing."""
        if self._stopped_at is None:
            self._stopped_at = now
            self.sent.clear()
            self._turns = [
                (self._first(entry, now), number, entry) for number, entry in enumerate(self._affordable(now))
            ]
            heapq.heapify(self._turns)

    def _affordable(self, now: float) -> Iterator[Entry]:
        """The sessions to speak for, the slowest first, until a VM's share of frames per second is used up."""
        budget = MOST_FRAMES_PER_S
        for entry in sorted(self._entries.values(), key=lambda one: -one.interval_s):
            if not entry.fresh(now):
                self.refused["silent before"] += 1
            elif (budget := budget - 1 / (entry.interval_s * entry.keepalive.jitter[0])) < 0:
                self.refused["too many frames per second"] += 1
            else:
                yield entry

    def _first(self, entry: Entry, now: float) -> float:
        return now if entry.keepalive.at_once else max(now, entry.seen_at + self._pause(entry))

    def _pause(self, entry: Entry) -> float:
        return entry.interval_s * self._random.uniform(*entry.keepalive.jitter)

    def next(self, now: float) -> float | None:
        """When the next frame is due, which may be before ``now``; None while the VM runs, and when the limit has passed."""
        if self._stopped_at is None or not self._turns:
            return None
        at = self._turns[0][0]
        return at if max(at, now) < self._stopped_at + self.limit_s else None

    def due(self, now: float) -> list[bytes]:
        """The frames to send at ``now``; one that is late is sent once, and the next counted from there."""
        frames: list[bytes] = []
        if self.next(now) is None:
            return frames
        while self._turns[0][0] <= now:
            _at, number, entry = self._turns[0]
            frames.append(entry.keepalive.frame)
            self.sent[str(entry.keepalive.key)] += 1
            heapq.heapreplace(self._turns, (now + self._pause(entry), number, entry))
        return frames

    def resume(self, now: float) -> None:
        """The VM runs again and speaks for itself. Its clock stood still: so did the age of what it said."""
        if self._stopped_at is not None:
            stood_s = now - self._stopped_at
            self._entries = {
                key: replace(entry, seen_at=entry.seen_at + stood_s) for key, entry in self._entries.items()
            }
            self._stopped_at, self._turns = None, []


def _follow(old: Entry, new: Entry) -> Entry:
    """What is known of the session stays known, unless it is another session between the same two."""
    if old.keepalive.number != new.keepalive.number:
        return new
    keepalive = new.keepalive
    if keepalive.changing:
        # a greater interval counts only when the Poll Sequence has ended (RFC 5880, 6.8.3)
        keepalive = replace(keepalive, interval_s=min(keepalive.interval_s, old.keepalive.interval_s))
    return replace(new, keepalive=keepalive, required_s=old.required_s)


def _wanted(heard: Heard) -> bool:
    """A neighbour that is not up will not be kept up; one may also want no periodic packets at all (RFC 5880, 6.8.7)."""
    return heard.up and heard.interval_s > 0
