"""Messages that the kernel would not have yet: a route whose interface is not up, or whose next hop is still to come.

Pure: the clock is an argument. They are tried again until the router says something else about the same object.
"""

from __future__ import annotations

import errno

MOST, MOST_BYTES = 65536, 16 << 20
_FIRST_S, _LONGEST_S = 0.05, 5.0
_AT_ONCE = 400
_MAY_PASS = frozenset(
    {
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EHOSTUNREACH,
        errno.ENODEV,
        errno.EINVAL,
        errno.ENOENT,
        errno.EADDRNOTAVAIL,
    }
)


def may_pass(code: int) -> bool:
    """Whether trying again later can help."""
    return code in _MAY_PASS


class Waiting:
    """``lost`` counts those there was no room for."""

    def __init__(self) -> None:
        self._messages: dict[bytes, bytes] = {}
        self._size_bytes = 0
        self._turn: list[bytes] = []
        self._delay_s = _FIRST_S
        self._next_at: float | None = None
        self.lost = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, key: bytes, message: bytes, now: float) -> None:
        self.forget(key)
        if len(self._messages) >= MOST or self._size_bytes + len(message) > MOST_BYTES:
            self.lost += 1
            return
        self._messages[key] = message
        self._size_bytes += len(message)
        if self._next_at is None:
            self._next_at = now + self._delay_s

    def forget(self, key: bytes) -> None:
        """The router has said something newer about it."""
        self._size_bytes -= len(self._messages.pop(key, b""))

    def hurry(self, now: float) -> None:
        """An interface or an address has changed: soon may be the time."""
        self._delay_s = _FIRST_S
        if self._messages:
            self._next_at = now + self._delay_s

    def due(self, now: float) -> list[tuple[bytes, bytes]]:
        """(key, message) to try now, a few hundred at a time; the rest of a turn is due at once."""
        if self._next_at is None or now < self._next_at:
            return []
        if not self._turn:
            self._turn = list(self._messages)
        keys, self._turn = self._turn[:_AT_ONCE], self._turn[_AT_ONCE:]
        if not self._turn:
            self._delay_s = min(2 * self._delay_s, _LONGEST_S)
            self._next_at = now + self._delay_s
        found = [(key, self._messages[key]) for key in keys if key in self._messages]
        for key, _ in found:
            self.forget(key)
        if not self._messages and not found:
            self._next_at = None
        return found

    def clear(self) -> None:
        self._messages.clear()
        self._size_bytes = 0
        self._turn = []
        self._next_at = None
