"""A VM's move as the journal keeps it, for a daemon that has been restarted to tell the fabric what became of it. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict

from controller_bridge.rerouters.base import Move


def encode(move: Move) -> str:
    return json.dumps(asdict(move))


def decode(text: str) -> Move:
    """ValueError, KeyError or TypeError if it is none of ours."""
    raw = json.loads(text)
    return Move(**{**raw, "macs": tuple(raw["macs"]), "addresses": tuple(raw["addresses"])})
