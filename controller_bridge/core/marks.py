"""What a cookie of ours says beside "ours": all that a controller that is started anew has to know of a station. Pure.

======  ====================================================================================================
bits    mean
======  ====================================================================================================
63-24   ours (:data:`COOKIE`)
23-12   the other host that may move the station as well, while its move has not ended (:func:`numbers`); 0: none
11-4    how often the station has been bound or let go, 1 to 255 and round; 0: never. Of two tables that differ the newer is right
3       it is bound: it moves only when that is told
2-1     the kind of entry
0       0, always: strict changes leave this bit out (:data:`controller_bridge.openflow.flow.SAME_OWNER`)
======  ====================================================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

COOKIE: Final = 0x766D6E6574000000
OWNER_MASK: Final = 0xFFFFFFFFFF000000
"""Whose cookie begins so is ours, and nobody else's is touched."""
MOST_HOSTS: Final = 1000
_ROUND: Final = 255
_NUMBERS: Final = 0xFFF


class Kind(IntEnum):
    BASE = 2
    STATION = 4
    GATEWAY = 6


class Mark(NamedTuple):
    """``partner``: a host's number, 0 for none. ``generation``: see above."""

    bound: bool = False
    generation: int = 0
    partner: int = 0


NEVER: Final = Mark()


def cookie(kind: Kind, mark: Mark = NEVER) -> int:
    return COOKIE | kind | mark.bound << 3 | mark.generation << 4 | mark.partner << 12


def read(one: int) -> Mark:
    """Of a cookie of ours."""
    return Mark(bool(one & 8), one >> 4 & 0xFF, one >> 12 & _NUMBERS)


def following(generation: int) -> int:
    return generation % _ROUND + 1


def newer(one: int, other: int) -> bool:
    """Whether generation ``one`` came after ``other``; of two that are very far apart nobody can tell."""
    if not one or not other:
        return bool(one)
    return 1 <= (one - other) % _ROUND <= _ROUND // 2


def numbers(hosts: Iterable[str]) -> dict[str, int]:
    """One for each host, 1 to 4095. They stay the same while no host comes or goes, and nearly all do even then."""
    given: dict[int, str] = {}
    for name in sorted(hosts):
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % _NUMBERS + 1
        while number in given:
            number = number % _NUMBERS + 1
        given[number] = name
    return {name: number for number, name in given.items()}
