"""A rerouter's own settings, read once and whole: what is missing, wrong or not known is a ConfigError that names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller_bridge.rerouters.web import base_url
from vmnet.errors import ConfigError

_HERE = "[rerouter.settings]"


class Settings:
    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._asked: set[str] = set()

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._one(key, default, str, "text"))

    def table(self, key: str, default: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        return dict(self._one(key, default, Mapping, "a table"))

    def seconds(self, key: str, default: float) -> float:
        value = self._one(key, default, int | float, "a number")
        if isinstance(value, bool) or not 0 < value <= 3600:
            raise ConfigError(f"{_HERE} {key} is not between 0 and 3600 seconds")
        return float(value)

    def number(self, key: str, default: int, least: int, most: int) -> int:
        value = self._one(key, default, int, "a whole number")
        if isinstance(value, bool) or not least <= value <= most:
            raise ConfigError(f"{_HERE} {key} is not between {least} and {most}")
        return int(value)

    def path(self, key: str) -> Path:
        path = Path(self.text(key))
        if not path.is_absolute():
            raise ConfigError(f"{_HERE} {key}: {path} does not begin with /")
        return path

    def url(self, key: str) -> str:
        return base_url(self.text(key))

    def texts(self, table: Any, name: str) -> dict[str, str]:
        """A table of texts and numbers, as texts."""
        if not isinstance(table, Mapping):
            raise ConfigError(f"{_HERE} {name} is not a table")
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise ConfigError(f"{_HERE} {name}.{key} is neither text nor a number")
        return {str(key): str(value) for key, value in table.items()}

    def done(self) -> None:
        """All have been asked for. ConfigError if there are others."""
        if unknown := sorted(self._given.keys() - self._asked):
            raise ConfigError(f"{_HERE} has no {unknown[0]}", f"known are {', '.join(sorted(self._asked))}")

    def _one(self, key: str, default: Any, kind: Any, what: str) -> Any:
        self._asked.add(key)
        if key not in self._given:
            if default is None:
                raise ConfigError(f"{_HERE} {key} is missing", "see docs/rerouters.md")
            return default
        if not isinstance(self._given[key], kind):
            raise ConfigError(f"{_HERE} {key} is not {what}")
        return self._given[key]
