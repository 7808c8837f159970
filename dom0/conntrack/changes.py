"""Which of a VM's connections the other host lacks: new, changed, about to expire there; and which have ended. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from dom0.conntrack.entry import Entry, Key

_STALE: Final = 0.75
"""One that has less than this of its time left there, compared with here, is sent again."""


@dataclass(frozen=True, slots=True)
class _Sent:
    entry: Entry
    until: float


@dataclass(frozen=True, slots=True)
class Changes:
    new: list[Entry]
    ended: list[Key]

    def __bool__(self) -> bool:
        return bool(self.new or self.ended)


class SentEntries:
    """``now`` is in seconds, by any clock that does not jump."""

    def __init__(self) -> None:
        self._sent: dict[Key, _Sent] = {}

    def changes(self, entries: Collection[Entry], now: float) -> Changes:
        """Since the last call, with ``entries`` all that there are. They count as sent."""
        here = {one.key: one for one in entries}
        new = [one for one in here.values() if self._is_news(one, now)]
        ended = [key for key in self._sent if key not in here]
        for key in ended:
            del self._sent[key]
        for one in new:
            self._sent[one.key] = _Sent(one, now + one.timeout_s)
        return Changes(new, ended)

    def _is_news(self, entry: Entry, now: float) -> bool:
        sent = self._sent.get(entry.key)
        if sent is None or _constant(sent.entry) != _constant(entry):
            return True
        return sent.until - now < _STALE * entry.timeout_s

    def __len__(self) -> int:
        return len(self._sent)


def _constant(entry: Entry) -> tuple[object, ...]:
    """All but its time."""
    return entry.status, entry.mark, entry.labels, entry.state
