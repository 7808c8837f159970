"""A log line for a thing that may happen a hundred thousand times: one in a while, saying how many there were."""

from __future__ import annotations

import logging

_EVERY_S = 5.0


class LimitedLog:
    def __init__(self, logger: logging.Logger, name: str) -> None:
        self._logger = logger
        self._name = name
        self._next_at = 0.0
        self._kept_back = 0

    def warn(self, now: float, text: str, count: int = 1) -> None:
        """``text`` once in 5 s; ``count`` is how many of the kind it stands for."""
        self._kept_back += count
        if now >= self._next_at:
            self._logger.warning("%s: %s (%d such)", self._name, text, self._kept_back)
            self._next_at, self._kept_back = now + _EVERY_S, 0
