"""The database schema that ships with this package, and the comparison of its version with another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("vmnet.ovsschema")
NAME = "vmnet"


def load() -> dict[str, Any]:
    """The schema as python-ovs wants it (a new object every time; the IDL uses it up)."""
    value: dict[str, Any] = json.loads(PATH.read_text())
    return value


def version() -> str:
    return str(load()["version"])


def newer(found: str, ours: str) -> bool:
    """Whether version ``found`` (``X.Y.Z``) is a later one than ``ours``."""
    return _parts(found) > _parts(ours)


def _parts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
