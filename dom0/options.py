"""What the operator may say about one migration; ``vmnet migrate --help`` says what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vmnet.errors import RefusedError
from vmnet.hypervisor.definition import Definition

_LONGEST_DOWNTIME_MS: Final = 60_000


@dataclass(frozen=True)
class Options:
    """``max_downtime_ms`` None: as configured."""

    max_downtime_ms: int | None = None
    allow_unprotected: bool = False
    definition: Definition = field(default_factory=Definition)

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Options:
        """RefusedError if a field is not what it must be; absent fields and null are as by default."""
        downtime = request.get("max_downtime_ms")
        if downtime is not None and not (type(downtime) is int and 0 < downtime <= _LONGEST_DOWNTIME_MS):
            raise RefusedError(f"max_downtime_ms is not a number from 1 to {_LONGEST_DOWNTIME_MS}")
        persistent = _flag(request, "persistent")
        definition = Definition(persistent, keep_source=_flag(request, "keep_source") is True)
        return cls(downtime, _flag(request, "allow_unprotected") is True, definition)


def _flag(request: Mapping[str, Any], name: str) -> bool | None:
    value = request.get(name)
    if value is not None and not isinstance(value, bool):
        raise RefusedError(f"{name} is neither true nor false")
    return value
